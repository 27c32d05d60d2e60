"""One system, one group of rows, in a process of its own: ``python -m versus.child SYSTEM GROUP full|quick``.

Writes a JSON line for each sample as it is there, so that a system that breaks half-way loses no more than the rest.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from . import measures, processes
from .systems import Unsupported, load


def main() -> None:
    name, group, size = sys.argv[1:]
    sizes = measures.QUICK if size == "quick" else measures.FULL
    serve(lambda tell: _measure(name, group, sizes, tell))


def serve(measure: Callable[[Any], None]) -> None:
    """Runs a measurement that tells its samples; what breaks it is told too."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What the systems print must not come between the lines.

    def tell(**line: Any) -> None:
        print(json.dumps(line), file=out, flush=True)

    processes.adopt()  # So that `cpu_seconds` sees daemons too.
    try:
        measure(tell)
    except Unsupported:
        pass
    except Exception as error:
        traceback.print_exc()
        tell(failure=_words(error))


def _words(error: Exception, where: str = "") -> str:
    return f"{where}{type(error).__name__}: {error}"[:500]


def _measure(name: str, group: str, sizes: measures.Sizes, tell: Any) -> None:
    system = load(name)
    tell(version=system.version())
    if group not in measures.ALONE:
        system.open()
    try:
        for key, value in measures.MEASURES[group](system, sizes):
            if isinstance(value, Exception):
                tell(failure=_words(value, f"{key}: "))
            else:
                tell(row=key, value=value)
    finally:
        if group not in measures.ALONE:
            system.close()


if __name__ == "__main__":
    main()
