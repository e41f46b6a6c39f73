"""Runs a piece of work under every row, in turns, and prints what each took and its ratios."""

import os
import re
import resource
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time

from rows import say

# Longer than any healthy run: what takes longer, of CPU or of wall time, is stopped and said to be.
CPU_MAX, WALL_MAX = 60, 90
# What takes longer than this, in seconds, is measured once.
SLOW = 5
SIGNALS = {-11: "SIGSEGV", -7: "SIGBUS", -4: "SIGILL", -6: "SIGABRT", -9: "killed"}


class Outcome:
    """One run of one program."""

    def __init__(self, row, arguments, program):
        env = {key: value for key, value in os.environ.items()
               if key not in ("LD_PRELOAD", "FENCEPOST_OPTIONS", "FENCEPOST_DENY")}
        command = [*row.before, program]
        if row.env.get("LD_PRELOAD"):
            # `env` sets the library for the program alone, not for this script's own child before it.
            command = ["/usr/bin/env", "LD_PRELOAD=" + row.env["LD_PRELOAD"], *command]
        env.update({key: value for key, value in row.env.items() if key != "LD_PRELOAD"})
        # Into files: a program that says much must not wait for a reader. The third tells how far one came that died.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as progress:
            progress.truncate(8)
            words = [str(progress.fileno()) if word == "PROGRESS" else word for word in arguments]
            started = time.monotonic()
            child = subprocess.Popen([*command, *words], env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                     pass_fds=[progress.fileno()], start_new_session=True, preexec_fn=bounds)
            status, usage, late = wait(child)
            self.wall, self.cpu = time.monotonic() - started, usage.ru_utime + usage.ru_stime
            self.memory = usage.ru_maxrss
            out.seek(0), err.seek(0), progress.seek(0)
            self.values = dict(re.findall(r"(\w+)=(\S+)", out.read(1 << 16).decode(errors="replace")))
            said = err.read(1 << 20).decode(errors="replace")
            alive = struct.unpack("=Q", progress.read(8))[0]
        self.failed = None
        code = os.waitstatus_to_exitcode(status)
        if code != 0:
            last = [line.strip() for line in said.splitlines() if line.strip()][-1:]
            how = late or SIGNALS.get(code, f"over {CPU_MAX} s of CPU" if code == -24 else f"status {code}")
            self.failed = how + (f" with {alive:,} alive" if alive else "") + (f': "{last[0][:60]}"' if last else "")

    def number(self, key):
        return float(self.values[key])


def bounds():
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_MAX, CPU_MAX + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def wait(child):
    """The child's end, brought about when it takes too long; and whether it was."""
    end, late = time.monotonic() + WALL_MAX, None
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid != 0:
            child.returncode = os.waitstatus_to_exitcode(status)
            return status, usage, late
        if late is None and time.monotonic() > end:
            late = f"over {WALL_MAX} s"
            os.killpg(child.pid, signal.SIGKILL)
        time.sleep(0.002)


class Work:
    """One table: what is run, how often, what its ratios are of, and what it shows. `names` are rows that stand in this
    table only; `keep` picks among the others. With `is_laid_out` each round has another layout of the programs."""

    def __init__(self, key, title, arguments, rounds, figure, columns, names=(), keep=lambda row: True, is_laid_out=False):
        self.key, self.title, self.arguments, self.rounds = key, title, arguments, rounds
        self.figure, self.columns, self.names, self.keep, self.is_laid_out = figure, columns, names, keep, is_laid_out

    def rows(self, made):
        return [row for row in made if row.name in self.names or (row.everywhere and self.keep(row))]


class Results:
    """What was measured: outcomes by work and row, and what became of those that gave none."""

    def __init__(self):
        self.outcomes, self.failed, self.works = {}, {}, {}

    def ratio(self, key, above, below, figure=None):
        """The median of one row's figure over another's, within the rounds that have both; None if there are none."""
        figure = figure or (self.works[key].figure if key in self.works else None)
        pair = [dict(self.outcomes.get(key, {}).get(row, [])) for row in (above, below)]
        ratios = [figure(pair[0][turn]) / figure(pair[1][turn]) for turn in pair[0]
                  if turn in pair[1] and figure(pair[1][turn]) > 0]
        return statistics.median(ratios) if ratios else None

    def median(self, key, row, figure=None):
        figure = figure or (self.works[key].figure if key in self.works else None)
        values = [figure(outcome) for _, outcome in self.outcomes.get(key, {}).get(row, [])]
        return statistics.median(values) if values else None

    def fate(self, key, row):
        return self.failed.get(key, {}).get(row, "not measured")


def show(value):
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def measure(results, work, made, deadline):
    """Runs one piece of work under every row, forwards in one round and backwards in the next, and prints its table."""
    chosen = work.rows(made)
    outcomes = {row.name: [] for row in chosen}
    failed = {row.name: "skipped: " + row.missing for row in chosen if row.missing}
    results.works[work.key], results.outcomes[work.key], results.failed[work.key] = work, outcomes, failed
    for turn in range(work.rounds):
        for row in chosen if turn % 2 == 0 else reversed(chosen):
            slow = any(outcome.wall > SLOW for _, outcome in outcomes[row.name])
            if row.name in failed or slow or time.monotonic() > deadline:
                continue
            say(f"{work.title}, round {turn + 1} of {work.rounds}: {row.name}")
            outcome = Outcome(row, row.arguments or work.arguments, row.program_of(turn) if work.is_laid_out else row.program)
            try:
                if not outcome.failed:
                    work.figure(outcome)
                    outcomes[row.name].append((turn, outcome))
                    continue
                failed[row.name] = "died: " + outcome.failed
            except KeyError as error:
                failed[row.name] = f"gave no figure {error}"
    say("")
    print_table(results, work, chosen)


def print_table(results, work, chosen):
    print(f"\n{work.title}")
    print(f"  {'':<30}" + "".join(f"{name:>16}" for name, _ in work.columns) + f"{'x system':>26}")
    outcomes, failed = results.outcomes[work.key], results.failed[work.key]
    base = {turn: work.figure(outcome) for turn, outcome in outcomes.get("system", [])}
    expected = {outcome.values.get("sum") for _, outcome in outcomes.get("system", [])}
    for row in chosen:
        if row.name in failed or not outcomes[row.name]:
            print(f"  {row.name:<30} {failed.get(row.name, 'not measured: the time was over')}")
            continue
        found = outcomes[row.name]
        cells = "".join(f"{cell([o for _, o in found], read):>16}" for _, read in work.columns)
        ratios = [work.figure(outcome) / base[turn] for turn, outcome in found if base.get(turn)]
        spread = f"{show(statistics.median(ratios))} ({show(min(ratios))}..{show(max(ratios))})" if ratios else "-"
        changed = {o.values.get("sum") for _, o in found} != expected and row.arguments is None and expected
        print(f"  {row.name:<30}{cells}{spread:>26}" + ("  CHANGED ITS RESULT" if changed else ""))
    sys.stdout.flush()


def cell(outcomes, read):
    try:
        return show(statistics.median(read(outcome) for outcome in outcomes))
    except KeyError:
        return "-"
