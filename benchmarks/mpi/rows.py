"""What is measured: the rows of the table with their targets, a set for each MPI. No measuring here.

The peers are other ways to do the same with the same MPI, measured in Bridgehead's own turns, call by call in between.
"""

from __future__ import annotations

from typing import Literal

from versus.rows import Row, Target

FAMILIES = {"mpich": "MPICH", "openmpi": "Open MPI"}
PEERS = ("mpiexec", "srun", "tmpfs", "disk", "gather")
GROUPS = ("start", "many", "traffic", "steps", "slurm")
MILLI, MICRO = "ms", "µs"
_AS_FAST = (Target(1, "mpiexec"),)
_EQUAL = (Target(0.95, "mpiexec"),)


def _of(family: str) -> tuple[Row, ...]:
    def row(key: str, group: str, title: str, unit: str, targets: tuple[Target, ...] = ()) -> Row:
        better: Literal["more", "less"] = "more" if unit == "GB/s" else "less"
        return Row(f"{key}-{family}", f"{group}-{family}", f"{FAMILIES[family]}: {title}", unit, better, targets)

    start, many, traffic, steps = GROUPS[:4]
    rows = (
        row("start-c", start, "start and end of 4 ranks, C", MILLI, _AS_FAST),
        row("start-function", start, "the same, a function with mpi4py; mpiexec: a script", MILLI, _AS_FAST),
        row("start-script", start, "the same, a script with mpi4py as a program", MILLI, _AS_FAST),
        row("many-serial", many, "a gang of 2 ranks, one after another", MILLI, _AS_FAST),
        row("many-at-once", many, "the same, all given at once and two run at a time, each", MILLI, _AS_FAST),
        row("trip-small", traffic, "8 B there and back between 2 ranks", MICRO, _EQUAL),
        row("trip-large", traffic, "1 MiB there and back, each way", "GB/s", _EQUAL),
        row("reduce-small", traffic, "allreduce of 8 B", MICRO, _EQUAL),
        row("reduce-large", traffic, "allreduce of 1 MiB", MICRO, _EQUAL),
        row("steps", steps, "a step of 8 MiB from 2 ranks to a Python task beside them", MILLI),
    )
    # Debian's Open MPI is started by no Slurm of Debian's: one has no PMI, the other no PMIx.
    slurm = (row("slurm", "slurm", "a gang of 2 ranks in a Slurm job, one after another", MILLI, (Target(1, "srun"),)),)
    return rows + (slurm if family == "mpich" else ())


ROWS = tuple(row for family in FAMILIES for row in _of(family))


def groups(asked: list[str], families: list[str]) -> list[str]:
    """Groups as the turns know them: one of each MPI."""
    known = dict.fromkeys(row.group for row in ROWS)
    return [group for group in known if group.split("-")[0] in asked and group.split("-")[1] in families]


def takes_part(group: str, system: str) -> bool:
    """Whether a system has a turn of its own: all peers are measured in Bridgehead's."""
    return system == "bridgehead"
