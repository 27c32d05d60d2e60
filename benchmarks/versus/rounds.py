"""Rounds: each system's turn at each group of rows, interleaved, every turn in a process of its own and alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import processes

HERE = Path(__file__).resolve().parent
LIMIT = 300.0
"""Seconds that a turn may take."""
PATIENCE = 10.0
"""Seconds that processes of a turn may outlive it before they are ended and counted."""


@dataclass(frozen=True)
class Failure:
    """A turn that gave no figure, or not all."""

    group: str
    system: str
    round: int
    message: str


@dataclass
class Results:
    """All figures of a run.

    Attributes:
        samples: by row and system, one a round; `None` for a round that failed.
        left: processes that were still there after their system had been closed.
    """

    samples: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    left: int = 0

    def add(self, row: str, system: str, round: int, value: float) -> None:
        """Keeps a figure."""
        samples = self.samples.setdefault(row, {}).setdefault(system, [])
        samples.extend([None] * (round + 1 - len(samples)))
        samples[round] = value


def takes_part(group: str, system: str) -> bool:
    """Whether there is anything of the group to measure on the system; the others are not even started for it."""
    without = {"programs": ("pool", "ray", "dask", "parsl"), "store": ("pool", "parsl")}
    if system == "xargs":
        return group == "programs"
    return system not in without.get(group, ())


@dataclass(frozen=True)
class Bench:
    """A set of measurements.

    Attributes:
        child: the module that measures one group on one system: ``python -m CHILD SYSTEM GROUP SIZE``.
        takes_part: whether a system has anything of a group.
    """

    child: str
    takes_part: Callable[[str, str], bool]


VERSUS = Bench("versus.child", takes_part)


def play(
    groups: list[str],
    systems: list[str],
    rounds: int,
    size: str,
    say: Callable[[str], None],
    bench: Bench = VERSUS,
    results: Results | None = None,
) -> Results:
    """Measures `groups` on `systems`, so many rounds of each group; adds to `results` where some are given."""
    results = Results() if results is None else results
    for group in groups:
        for round in range(rounds):
            for system in systems:
                if bench.takes_part(group, system):
                    begin = time.monotonic()
                    _turn(results, group, system, round, size, bench.child)
                    say(f"{group}, round {round + 1} of {rounds}: {system}, {time.monotonic() - begin:.1f} s")
    return results


def _turn(results: Results, group: str, system: str, round: int, size: str, child: str) -> None:
    def fail(message: str) -> None:
        results.failures.append(Failure(group, system, round, message))

    with tempfile.TemporaryDirectory(prefix="bv-") as folder:
        try:
            if group == "start":
                results.add("start", system, round, _start(system, folder))
            else:
                command = [sys.executable, "-m", child, system, group, size]
                _measure(results, command, system, round, folder, fail)
        except (OSError, ValueError) as error:
            fail(f"{type(error).__name__}: {error}")
        finally:
            results.left += processes.end_all(PATIENCE)


def _environment(folder: str) -> dict[str, str]:
    """What all systems see: nothing of the user's settings, and folders that go with the turn."""
    added = {
        "HOME": folder,
        "TMPDIR": folder,
        "BRIDGEHEAD_HOME": folder,
        "RAY_TMPDIR": folder,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "PYTHONPATH": str(HERE.parent),
        "PATH": os.pathsep.join((os.path.join(sys.prefix, "bin"), os.environ.get("PATH", os.defpath))),
    }
    return os.environ | added


def _measure(
    results: Results, command: list[str], system: str, round: int, folder: str, fail: Callable[[str], None]
) -> None:
    with open(Path(folder, "child.log"), "w+") as log:
        try:
            done = subprocess.run(
                command, cwd=folder, env=_environment(folder), stdout=subprocess.PIPE, stderr=log, timeout=LIMIT
            )
            output, code = done.stdout, done.returncode
        except subprocess.TimeoutExpired as late:
            output, code = late.stdout or b"", 0
            fail(f"not done after {LIMIT:.0f} s")
        for line in output.decode().splitlines():
            _take(results, system, round, json.loads(line), fail)
        if code != 0:
            log.seek(0)
            fail(f"its process ended with {code}: {log.read()[-500:]}")


def _take(results: Results, system: str, round: int, line: dict[str, Any], fail: Callable[[str], None]) -> None:
    if "row" in line:
        # What a system is compared to may be measured in its own turn, in between.
        results.add(line["row"], line.get("system", system), round, line["value"])
    elif "failure" in line:
        fail(line["failure"])
    else:
        results.versions[system] = line["version"]


def _start(system: str, folder: str) -> float:
    """Seconds from the start of the script's process until its result can be read."""
    script = [sys.executable, str(HERE / "start" / f"with_{system}.py")]
    with open(Path(folder, "start.log"), "w+") as log:
        begin = time.perf_counter()
        with subprocess.Popen(
            script, cwd=folder, env=_environment(folder), stdout=subprocess.PIPE, stderr=log
        ) as child:
            assert child.stdout is not None
            line = child.stdout.readline()
            seconds = time.perf_counter() - begin
            child.stdout.read()
        log.seek(0)
        if line.strip() != b"42" or child.returncode != 0:
            raise ValueError(f"the script printed {line!r} and ended with {child.returncode}: {log.read()[-500:]}")
    return seconds
