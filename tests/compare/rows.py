"""The rows of the comparison: what is built, and what each allocator or debugger runs with."""

import glob
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
TRIPLE = "x86_64-unknown-linux-gnu"
# In how many ways the functions of a program are laid out where that matters.
LAYOUTS = 11
# Builds that take longer than this are stopped, in seconds.
BUILD_MAX = 1800


def say(text):
    """Progress, for those who watch."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K" + text[:100])
        sys.stderr.flush()


class Row:
    """One allocator or debugger: a program, what runs before it, and its environment."""

    def __init__(self, name, program, env=None, before=(), missing=None, arguments=None, everywhere=True):
        self.name, self.program, self.env = name, program, env or {}
        self.before, self.missing = list(before), missing
        # What is run instead of the table's work: a figure of the kernel's own, beside it.
        self.arguments = arguments
        # Whether it is in every table, or only in those that name it.
        self.everywhere = everywhere
        # The same program with its functions in other places of memory, where there are such.
        self.layouts = []

    def program_of(self, turn):
        return self.layouts[turn % len(self.layouts)] if self.layouts else self.program


def find(*paths):
    """The newest path that exists; `*` in a path stands for a version."""
    for path in paths:
        for match in sorted(glob.glob(path), reverse=True):
            return match
    return None


def absent(path, package):
    return None if path else f"not installed (package {package})"


def build(arguments, folder, env=None, where=("tests", "compare"), how="build"):
    """Runs cargo; an error text, or None."""
    full = dict(os.environ, CARGO_TARGET_DIR=folder, **(env or {}))
    try:
        done = subprocess.run(["cargo", how, "--quiet", *arguments], env=full, text=True, timeout=BUILD_MAX,
                              cwd=os.path.join(ROOT, *where), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    except subprocess.TimeoutExpired:
        return f"its build took more than {BUILD_MAX} s"
    if done.returncode == 0:
        return None
    sys.stderr.write(done.stderr)
    return "its build failed, see above"


def kernel(plain, millis):
    """What the kernel asks for the calls that guarding is made of, as rows of the tables of pairs."""
    figures = [("syscall", "bare system call"), ("move", "bare UFFDIO_MOVE and touch"),
               ("move-two", "bare UFFDIO_MOVE, two threads"), ("move-random", "bare UFFDIO_MOVE, random page"),
               ("move-16", "bare UFFDIO_MOVE of 16 pages"), ("move-mix", "bare UFFDIO_MOVE, a mix"),
               ("fault-guard", "bare fault and guard marker"), ("mmap", "mmap and mprotect a block"),
               ("chain", "bare walk of 20 frame pointers")]
    return [Row(name, plain, arguments=["--child", "kernel", what, millis], everywhere=False) for what, name in figures]


def fencepost(guarded, missing):
    """The rows of fencepost itself."""
    made = []
    for name, options in [("off", "mode=off"), ("sample 1000", "mode=sample,sample_rate=1000"),
                          ("budget 5", "mode=budget,budget=5"),
                          ("move, engine alone", "engine=move,stack_depth=0,fill=off"),
                          ("move", "engine=move"), ("marker", "engine=marker"), ("mprotect", "engine=mprotect")]:
        made.append(Row("fencepost " + name, guarded, {"FENCEPOST_OPTIONS": options + ",summary=off"}, missing=missing))
    for name, options, deny in [("move, no stacks", "engine=move,stack_depth=0", ""),
                                ("move, by backtrace", "engine=move", "tables"),
                                ("marker, engine alone", "engine=marker,stack_depth=0,fill=off", "")]:
        env = {"FENCEPOST_OPTIONS": options + ",summary=off", "FENCEPOST_DENY": deny}
        made.append(Row("fencepost " + name, guarded, env, missing=missing, everywhere=False))
    return made


def profile_of(dev, packages):
    """What cargo is told, the folder it builds in, and what that folder calls the profile."""
    if not dev:
        return ["--release"], TARGET, "release"
    if packages:
        return ["--config", 'profile.dev.package."*".opt-level=2'], os.path.join(TARGET, "compare-packages"), "debug"
    return [], TARGET, "debug"


def rows(dev, packages, millis):
    """Builds what is needed and gives the rows of the tables; what could not be built says why. With `dev` the programs are
    those of a dev build in every row, and so is what is linked into them; with `packages` all but the program itself is
    optimised there."""
    profile, folder, made_in = profile_of(dev, packages)
    say("building: plain and guarded")
    why = build(["--release", "--bin", "plain"], TARGET) or build([*profile, "--bin", "plain"], folder)
    if why:
        sys.exit("compare: the plain programs are needed for every table: " + why)
    why_guarded = build([*profile, "--features", "fencepost", "--bin", "guarded"], folder)
    say("building: AddressSanitizer")
    sanitizer = os.path.join(TARGET, "compare-asan" + ("-packages" if packages else ""))
    # The sanitizer is a switch of the nightly compiler; the stable one has it under this variable.
    why_asan = build([*profile, "--bin", "plain", "--target", TRIPLE], sanitizer, {
        "RUSTC_BOOTSTRAP": "1", "RUSTFLAGS": "-Zsanitizer=address", "CFLAGS": "-fsanitize=address -g1"})
    say("building: mimalloc with guard pages")
    guarding = os.path.join(TARGET, "compare-mimalloc" + ("-packages" if packages else ""))
    why_mimalloc = build([*profile, "--features", "mimalloc", "--bin", "with_mimalloc"], guarding,
                         {"CFLAGS": "-DMI_GUARDED=1"})
    say("building: the preload library")
    why_preload = build(["--release", "-p", "fencepost-preload"], TARGET, where=())
    library = os.path.join(TARGET, "release", "libfencepost_preload.so")
    # The kernel's own figures are no matter of the program's profile; nobody preloads a dev build.
    bare = os.path.join(TARGET, "release", "plain")
    plain = os.path.join(folder, made_in, "plain")
    guarded = os.path.join(folder, made_in, "guarded")
    made = [Row("system", plain), *fencepost(guarded, why_guarded)]
    made.append(Row("fencepost preload", plain, {"LD_PRELOAD": library, "FENCEPOST_OPTIONS": "summary=off"},
                    missing=why_preload))
    fence = find("/usr/lib/libefence.so.0", "/usr/lib/*/libefence.so.0")
    made.append(Row("Electric Fence", plain, {"LD_PRELOAD": fence or ""}, missing=absent(fence, "electric-fence")))
    duma = find("/usr/lib/libduma.so.0", "/usr/lib/*/libduma.so.0")
    made.append(Row("DUMA", plain, {"LD_PRELOAD": duma or ""}, missing=absent(duma, "duma")))
    valgrind = shutil.which("valgrind")
    made.append(Row("Valgrind memcheck", plain, before=[valgrind or "", "--quiet", "--num-callers=32"],
                    missing=absent(valgrind, "valgrind")))
    asan = os.path.join(sanitizer, TRIPLE, made_in, "plain")
    made.append(Row("AddressSanitizer", asan, {"ASAN_OPTIONS": "detect_leaks=0"}, missing=why_asan))
    scudo = find("/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.scudo_standalone-x86_64.so")
    made.append(Row("scudo, GWP-ASan on all", plain, {
        "LD_PRELOAD": scudo or "",
        "SCUDO_OPTIONS": "GWP_ASAN_Enabled=1:GWP_ASAN_SampleRate=1:GWP_ASAN_MaxSimultaneousAllocations=30000",
    }, missing=absent(scudo, "libclang-rt-dev")))
    made.append(Row("mimalloc, guarded", os.path.join(guarding, made_in, "with_mimalloc"),
                    {"MIMALLOC_GUARDED_SAMPLE_RATE": "1", "MIMALLOC_GUARDED_PRECISE": "1"}, missing=why_mimalloc))
    return made + kernel(bare, millis)


def lay_out(made):
    """Links the optimised programs anew with their functions in other orders. Where the linker happens to put a program's inner loop
    makes it several hundredths faster or slower, which is more than what is to be measured of a mode that is left on."""
    folder = os.path.join(TARGET, "compare-layouts")
    kinds = [("plain", []), ("guarded", ["--features", "fencepost"])]
    programs = {kind: os.path.join(TARGET, "release", kind) for kind, _ in kinds}
    # Made of these programs, and so often.
    stamp = " ".join([str(LAYOUTS), *(str(os.stat(program).st_mtime_ns) for program in programs.values())])
    note = os.path.join(folder, "stamp")
    if not os.path.exists(note) or open(note, encoding="utf-8").read() != stamp:
        for kind, features in kinds:
            for number in range(1, LAYOUTS + 1):
                say(f"building: {kind}, layout {number} of {LAYOUTS}")
                order = f"-Clink-arg=-Wl,--shuffle-sections=*={number}"
                why = build(["--release", *features, "--bin", kind, "--", order], folder, how="rustc")
                if why:
                    return f"one layout only: {why}; the linker must know --shuffle-sections, as LLVM's does"
                shutil.copy2(os.path.join(folder, "release", kind), os.path.join(folder, f"{kind}-{number}"))
        with open(note, "w", encoding="utf-8") as file:
            file.write(stamp)
    for row in made:
        for kind, program in programs.items():
            if row.program == program:
                row.layouts = [os.path.join(folder, f"{kind}-{number}") for number in range(1, LAYOUTS + 1)]
    return None
