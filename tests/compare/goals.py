"""The goals of this project's speed, held against one run: goal, measured, met or not."""

import statistics

from measure import show

MOVE_FLOOR, MARKER_FLOOR, MMAP = "bare UFFDIO_MOVE and touch", "bare fault and guard marker", "mmap and mprotect a block"
ASAN, VALGRIND = "AddressSanitizer", "Valgrind memcheck"


class Goal:
    """One line: what was wanted, what came out, and whether that is enough (None: it could not be told)."""

    def __init__(self, work, goal, measured, met):
        self.work, self.goal, self.measured, self.met = work, goal, measured, met


def at_most(work, what, value, limit, unit="x"):
    if value is None:
        return Goal(work, f"{what}: at most {limit} {unit}", "not measured", None)
    return Goal(work, f"{what}: at most {limit} {unit}", f"{show(value)} {unit}", value <= limit)


def at_least(work, what, value, limit, unit="x"):
    if value is None:
        return Goal(work, f"{what}: at least {limit} {unit}", "not measured", None)
    return Goal(work, f"{what}: at least {limit} {unit}", f"{show(value)} {unit}", value >= limit)


def pairs(results):
    for size in (16, 100, 1000):
        key, work = f"pair {size}", f"pair of {size} bytes"
        alone = results.ratio(key, "fencepost move, engine alone", MOVE_FLOOR)
        yield at_most(work, "engine alone, in stack order, of a bare UFFDIO_MOVE and touch", alone, 1.15)
        key = f"random {size}"
        alone = results.ratio(key, "fencepost move, engine alone", "bare UFFDIO_MOVE, random page")
        yield at_most(work, "engine alone, in random order, of a bare move of a random page", alone, 1.35)
    # A malloc that makes no system call, by itself, scaled by the system call of the same run.
    birth = results.median("births", "fencepost move, engine alone", lambda outcome: outcome.number("alloc"))
    call = results.median("births", "bare system call")
    share = birth / call * 950 if birth and call else None
    yield at_most("8 allocated and then freed", "a malloc without a system call, where a bare system call takes 950", share, 150, "ns")
    for size in (16, 100, 1000):
        key, work = f"pair {size}", f"pair of {size} bytes"
        yield at_most(work, "as shipped, of the bare UFFDIO_MOVE and touch",
                      results.ratio(key, "fencepost move", MOVE_FLOOR), 1.6)
        for other, limit in [(MMAP, 6), ("Electric Fence", 8), ("DUMA", 40), ("scudo, GWP-ASan on all", 5)]:
            yield at_least(work, f"faster than {other}", results.ratio(key, other, "fencepost move"), limit)
    for size, limit in ((1000, 1.5), (5000, 0.5), (65536, 0.5)):
        yield at_most(f"pair of {size} bytes", f"of {ASAN}'s time", results.ratio(f"pair {size}", "fencepost move", ASAN), limit)
    for size in (16, 1000):
        marker = results.ratio(f"pair {size}", "fencepost marker, engine alone", MARKER_FLOOR)
        yield at_most(f"pair of {size} bytes", "engine marker, of a bare fault and guard marker", marker, 1.3)


def many(results):
    memory = lambda outcome: outcome.memory
    work = "mix of 50,000 live blocks"
    yield at_most(work, f"of {ASAN}'s CPU", results.ratio("mix", "fencepost move", ASAN), 2)
    yield at_most(work, f"of {ASAN}'s memory", results.ratio("mix", "fencepost move", ASAN, memory), 0.6)
    yield at_most(work, f"of {VALGRIND}'s CPU", results.ratio("mix", "fencepost move", VALGRIND), 1)
    yield at_most(work, f"of {VALGRIND}'s memory", results.ratio("mix", "fencepost move", VALGRIND, memory), 1)
    work, row = "1,000,000 live blocks", "fencepost move"
    few, most = (results.median(f"among {count}", row) for count in (1000, 1_000_000))
    yield at_most(work, "a pair, of one among 1,000", most / few if few and most else None, 1.3)
    for key, limit, unit, scale in [("mappings", 99, "mappings", 1), ("bytes", 4.3, "KiB resident a block", 1024),
                                    ("tables", 130, "bytes of page table a block", 1)]:
        value = results.median("live 1000000", row, lambda outcome, key=key: outcome.number(key))
        yield at_most(work, "what they take", None if value is None else value / scale, limit, unit)


def threads(results):
    yield at_least("pairs of 16 bytes", "two threads together, of one",
                   divided(results, "threads 1", "threads 2", "fencepost move"), 1.7)
    for row, how in [("fencepost move", "recalled or by rules"), ("fencepost move, by backtrace", "by backtrace")]:
        cost = results.median("deep", row), results.median("deep", "fencepost move, no stacks")
        value = (cost[0] - cost[1]) / 2000 if None not in cost else None
        goal = at_most("a stack of 20 frames and more", f"one capture, warm, {how}", value, 0.5, "µs")
        # The second line is for comparison.
        yield goal if "backtrace" not in how else Goal(goal.work, f"for comparison: {how}", goal.measured, None)


def divided(results, one, two, row):
    above, below = results.median(one, row), results.median(two, row)
    return above / below if above and below else None


def programs(results, names):
    ratios = {other: {name: results.ratio(f"program {name}", other, "fencepost move") for name in names}
              for other in (VALGRIND, ASAN)}
    known = {other: {name: value for name, value in found.items() if value} for other, found in ratios.items()}
    work, faster = "whole programs under strict", {other: [name for name, value in found.items() if value > 1]
                                                   for other, found in known.items()}
    if known[VALGRIND]:
        yield Goal(work, f"faster than {VALGRIND} on all", f"on {len(faster[VALGRIND])} of {len(known[VALGRIND])}",
                   len(faster[VALGRIND]) == len(names))
        yield at_least(work, f"faster than {VALGRIND}, median", statistics.median(known[VALGRIND].values()), 5)
    if known[ASAN]:
        yield Goal(work, f"faster than {ASAN} on at least half", f"on {len(faster[ASAN])} of {len(known[ASAN])}: "
                   + (", ".join(faster[ASAN]) or "none"), 2 * len(faster[ASAN]) >= len(names))
    for row, what, limit in (("fencepost budget 5", "slowdown under budget 5", 6), ("fencepost sample 1000", "slowdown under sample 1000", 1)):
        for name in names:
            ratio = results.ratio(f"long {name}", row, "system")
            yield at_most(f"program {name}, over and over", what, percent_above(ratio), limit, "%")
        once = {name: percent_above(results.ratio(f"program {name}", row, "system")) for name in names}
        told = ", ".join(f"{name} {show(value)} %" for name, value in once.items() if value is not None)
        yield Goal("whole programs, once", f"for comparison: {what}, with the start of a process of some 60 ms", told or "not measured", None)


def percent_above(ratio):
    return None if ratio is None else (ratio - 1) * 100


def report(results, names):
    """Prints every goal with what this run says of it."""
    goals = [*pairs(results), *many(results), *threads(results), *programs(results, names)]
    print(f"\ngoals\n  {'work':<32}{'goal':<88}{'measured':>34}  met")
    for goal in goals:
        met = {True: "yes", False: "NO", None: "-"}[goal.met]
        print(f"  {goal.work:<32}{goal.goal:<88}{goal.measured:>34}  {met}")
    count = lambda met: sum(goal.met is met for goal in goals)
    print(f"  {count(True)} met, {count(False)} not met, {count(None)} not told by this run. Bugs found under a budget: scripts/corpus, "
          "and the tests of mode=budget.")
