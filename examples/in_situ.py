"""In-situ coupling: a heat equation runs, and a model is fitted to its fields while they come, without a file.

    bridgehead run examples/in_situ.py

The simulation solves u_t = a (u_xx + u_yy) + q + noise on a plate, with explicit Euler steps, and publishes its temperature
every few of them. The other task knows neither the diffusivity `a` nor how strong the heater `q` is: it takes each field as a
view of the same memory (on another node: after one transfer) and fits both by least squares, better the more fields it has seen. The
stream keeps two fields and blocks, so the simulation never runs further ahead than that.

Runs unchanged with `python examples/in_situ.py` and with `--agents 2`.
"""

from __future__ import annotations

import bridgehead as bh
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float64]

SIZE = 192
"""Points along each side of the plate."""
STRIDE = 20
"""Time steps between two fields."""
DT = 0.2
"""Time step; the points are 1 apart."""
NOISE = 0.02
"""Standard deviation of the heat that comes and goes at each point."""
TRUTH = (0.7, 0.05)
"""Diffusivity, and strength of the heater."""


def laplacian(u: Field) -> Field:
    """Of the inner points."""
    return u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4 * u[1:-1, 1:-1]


def heater() -> Field:
    """Where the plate is heated: a disc off its middle."""
    y, x = np.mgrid[1 : SIZE - 1, 1 : SIZE - 1]
    return ((x - SIZE / 3) ** 2 + (y - SIZE / 2) ** 2 < (SIZE / 10) ** 2).astype(float)


@bh.task
def simulate(diffusivity: float, strength: float, fields: int) -> float:
    """Runs the solver and publishes its fields; the plate's mean temperature at the end."""
    rng = np.random.default_rng(3)
    u = np.zeros((SIZE, SIZE))
    heat = strength * heater()
    with bh.store().stream("temperature", keep=2, block=True) as stream:
        for _ in range(fields):
            for _ in range(STRIDE):
                before = u
                u = before.copy()
                noise = NOISE * rng.standard_normal(heat.shape)
                u[1:-1, 1:-1] += DT * (diffusivity * laplacian(before) + heat + noise)
            stream.put(np.stack([before, u]))  # The last two, so that the rate of change is there.
    return float(u.mean())


@bh.task
def fit() -> list[tuple[int, float, float]]:
    """Fits diffusivity and strength to all fields so far: (field, diffusivity, strength) of each."""
    shape = heater().ravel()
    normal, right = np.zeros((2, 2)), np.zeros(2)
    estimates = []
    for step, (before, after) in bh.store().watch("temperature", timeout=60):
        rate = ((after - before)[1:-1, 1:-1] / DT).ravel()
        columns = np.stack([laplacian(before).ravel(), shape])
        normal += columns @ columns.T
        right += columns @ rate
        estimates.append((step, *np.linalg.lstsq(normal, right, rcond=None)[0]))
    return estimates


p = bh.Pipeline("in-situ")
mean = p.add(simulate, *TRUTH, fields=12)
estimates = p.add(fit)

if __name__ == "__main__":
    with p.run() as run:
        for step, diffusivity, strength in run[estimates].result():
            print(f"field {step:2}: diffusivity {diffusivity:.4f}, heater {strength:.5f}")
        print(f"the truth:  diffusivity {TRUTH[0]:.4f}, heater {TRUTH[1]:.5f}")
        print(f"mean temperature at the end: {run[mean].result():.4f}")
