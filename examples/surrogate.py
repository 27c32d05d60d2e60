"""A sweep of a 2-D simulation, and a surrogate trained on its fields.

The simulation is Gray-Scott reaction and diffusion on a periodic grid: two chemicals, five-point Laplacian, explicit Euler
steps. Each run of the sweep has its own feed and kill rates; its final field stays in the store until a feature task reads it.
A Gaussian process then learns how the pattern's features follow from the rates, and is scored on runs that it has not seen.

Runs unchanged with `python examples/surrogate.py`, `bridgehead run examples/surrogate.py`, and with `--agents 2`.
"""

from __future__ import annotations

from pathlib import Path

import bridgehead as bh
import numpy as np
from numpy.typing import NDArray

GRID = 256
STEPS = 150
Field = NDArray[np.float64]


def laplacian(z: Field) -> Field:
    return np.roll(z, 1, 0) + np.roll(z, -1, 0) + np.roll(z, 1, 1) + np.roll(z, -1, 1) - 4 * z


@bh.task(cpus=1)
def simulate(feed: float, kill: float) -> Field:
    """The second chemical's concentration after `STEPS` steps, GRID x GRID."""
    rng = np.random.default_rng(7)
    u = np.ones((GRID, GRID))
    v = np.zeros((GRID, GRID))
    for x, y in rng.integers(0, GRID - 20, size=(20, 2)):
        u[x : x + 20, y : y + 20] = 0.5
        v[x : x + 20, y : y + 20] = 0.25 + 0.02 * rng.standard_normal((20, 20))
    for _ in range(STEPS):
        reaction = u * v * v
        u += 0.16 * laplacian(u) - reaction + feed * (1 - u)
        v += 0.08 * laplacian(v) + reaction - (feed + kill) * v
    return v


@bh.task(cpus=1)
def features(field: Field) -> Field:
    """Mean, spread, covered share and mean gradient of a field."""
    gx, gy = np.gradient(field)
    return np.array([field.mean(), field.std(), (field > 0.1).mean(), np.hypot(gx, gy).mean()])


@bh.task(cpus=1)
def train(rates: Field, rows: list[Field]) -> dict[str, object]:
    """Fits a Gaussian process to the mean concentration; scores it on a fourth of the runs, which it has not seen."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, WhiteKernel
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    target = np.array([row[0] for row in rows])
    held_out = np.random.default_rng(0).permutation(len(target)) % 4 == 3
    kernel = RBF([1.0, 1.0], (0.2, 20)) + WhiteKernel(1e-3, (1e-6, 1e-1))
    process = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=3, random_state=0)
    model = make_pipeline(StandardScaler(), process)
    model.fit(rates[~held_out], target[~held_out])
    predicted = model.predict(rates)
    score = float(model.score(rates[held_out], target[held_out]))
    return {"score": score, "target": target, "predicted": predicted, "held_out": held_out}


def build() -> tuple[bh.Pipeline, list[bh.Node[Field]], bh.Node[dict[str, object]]]:
    feeds, kills = np.meshgrid(np.linspace(0.02, 0.06, 8), np.linspace(0.055, 0.066, 8))
    rates = np.column_stack([feeds.ravel(), kills.ravel()])
    p = bh.Pipeline("surrogate")
    fields = p.map(simulate, rates[:, 0], rates[:, 1])
    rows = p.map(features, fields)
    return p, fields, p.add(train, rates, rows)


def plot(path: Path, fields: list[Field], result: dict[str, object]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(14, 3.6), constrained_layout=True)
    for axis, field in zip(axes, fields, strict=False):
        axis.imshow(field, cmap="magma")
        axis.set_axis_off()
    target, predicted, held_out = (np.asarray(result[key]) for key in ("target", "predicted", "held_out"))
    for mask, label in ((~held_out, "trained on"), (held_out, "held out")):
        axes[3].scatter(target[mask], predicted[mask], s=14, label=label)
    axes[3].plot([target.min(), target.max()], [target.min(), target.max()], color="grey", lw=0.8)
    axes[3].set(xlabel="simulated mean", ylabel="surrogate", title=f"held-out R² = {result['score']:.3f}")
    axes[3].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    pipeline, fields, model = build()
    with pipeline.run() as run:
        result = run[model].result()
        shown = [run[fields[i]].result() for i in (9, 27, 54)]
    print(f"{len(fields)} simulations, held-out R² = {result['score']:.3f}")
    picture = Path(__file__).parent / "out" / "surrogate.png"
    plot(picture, shown, result)
    print(f"plotted to {picture}")
