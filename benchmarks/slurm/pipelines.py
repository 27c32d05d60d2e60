"""The pipelines that are measured: `pipelines.py KIND NOTES [N]`. Tasks do nothing, so that what is left is ours."""

from __future__ import annotations

import os
import sys
import time

import bridgehead as bh


@bh.task(cpus=1)
def stamp(notes: str) -> None:
    """Writes down when it began."""
    with open(os.path.join(notes, "first-task"), "w") as file:
        file.write(str(time.time_ns()))


@bh.task(cpus=1)
def nothing(n: int) -> None:
    pass


kind, notes, *rest = sys.argv[1:]
p = bh.Pipeline(kind)
if kind == "stamp":
    p.add(stamp, notes)
elif kind == "functions":
    p.map(nothing, range(int(rest[0])))
elif kind == "programs":
    for _ in range(int(rest[0])):
        p.add(bh.program("true"))

if __name__ == "__main__":
    p.run()
