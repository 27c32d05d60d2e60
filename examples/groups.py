"""A pipeline whose parts need different nodes: many small simulations, then one fit in an allocation of its own.

    python groups.py                                                     # here: one allocation, which the group shares
    bridgehead submit --on slurm --nodes 2 --cpus 4 --time 10m groups.py [PARTITION]     # two jobs, one after the other

A damped oscillator is simulated for many dampings; the fit finds each damping again from its decay. A simulation that sees
its allocation's end coming stops early, which costs it accuracy and not its work.
"""

from __future__ import annotations

import sys

import bridgehead as bh
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
STEP = 1e-3
STEPS = 40_000


@bh.task(cpus=1, timeout="5m")
def oscillate(damping: float) -> Array:
    """Positions of an oscillator of mass and stiffness 1, by the leapfrog scheme."""
    positions = np.empty(STEPS)
    position, speed = 1.0, 0.0
    for step in range(STEPS):
        speed += STEP * (-position - damping * speed)
        position += STEP * speed
        positions[step] = position
        remaining = bh.current().remaining()
        if step % 1000 == 0 and remaining is not None and remaining < 5:
            return positions[: step + 1]
    return positions


@bh.task(cpus=1)
def fit(runs: list[Array]) -> list[float]:
    """The damping of each run: the logarithm of its peaks falls by half of it each unit of time."""
    found = []
    for positions in runs:
        middle = positions[1:-1]
        peaks = np.flatnonzero((middle > positions[:-2]) & (middle > positions[2:]) & (middle > 1e-9)) + 1
        slope = np.polyfit(peaks * STEP, np.log(positions[peaks]), 1)[0]
        found.append(float(-2 * slope))
    return found


DAMPINGS = np.linspace(0.05, 0.4, 8)
p = bh.Pipeline("groups")
runs = p.map(oscillate, [float(damping) for damping in DAMPINGS])
apart = p.group("fit", nodes=1, partition=sys.argv[1] if len(sys.argv) > 1 else None)
answer = apart.add(fit, runs)

if __name__ == "__main__":
    with p.run() as run:
        for damping, found in zip(DAMPINGS, run[answer].result(), strict=True):
            print(f"damping {damping:.3f}   found {found:.4f}")
