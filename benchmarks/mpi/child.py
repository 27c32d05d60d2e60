"""One group of rows in a process of its own: ``python -m mpi.child bridgehead GROUP-FAMILY full|quick``. Goes on in the interpreter whose
mpi4py has the group's MPI."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from versus.child import serve

from . import programs
from .sizes import FULL, QUICK, Sizes

Measure = Callable[[str, Sizes], Iterator[tuple[str, str, float]]]


def measures() -> dict[str, Measure]:
    """What measures each group; imported only where Bridgehead is."""
    from . import gangs, slurm, steps

    return {
        "start": gangs.start,
        "many": gangs.many,
        "traffic": gangs.traffic,
        "steps": lambda _, sizes: steps.steps(sizes),
        "slurm": slurm.slurm,
    }


def main() -> None:
    """Tells each sample as it is there."""
    _, group, size = sys.argv[1:]
    kind, _, family = group.partition("-")
    programs.enter(family)

    def measure(tell: Any) -> None:
        import bridgehead

        tell(version=bridgehead.__version__)
        for row, reached_by, value in measures()[kind](family, QUICK if size == "quick" else FULL):
            tell(row=f"{row}-{family}", system=reached_by, value=value)

    serve(measure)


if __name__ == "__main__":
    main()
