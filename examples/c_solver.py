"""A solver in C publishes its fields in shared memory, and a Python task fits a model to them while it runs, without a file.

    make install-c PREFIX=$HOME/.local
    python examples/c_solver.py --prefix $HOME/.local [--ranks 4]

Compiles `examples/c/heat.c` with `cc` and runs it as a program of a pipeline; with `--ranks` it is compiled with `mpicc` and runs
as that many MPI ranks, which share the plate's rows and publish their own. The task knows neither the diffusivity nor how
strong the heater is: it takes each block as a view of the memory that the rank has filled (on another node: after one
transfer), and fits both by least squares.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import bridgehead as bh
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float64]

SIZE, DT, FIELDS = 192, 0.2, 12
TRUTH = (0.7, 0.05)
"""Diffusivity, and strength of the heater."""


def laplacian(u: Field) -> Field:
    """Of the inner points."""
    return u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4 * u[1:-1, 1:-1]


@bh.task
def fit(ranks: int) -> list[tuple[int, float, float]]:
    """Fits diffusivity and strength to all fields so far: (field, diffusivity, strength) of each."""
    y, x = np.mgrid[1 : SIZE - 1, 1 : SIZE - 1]
    heater = ((x - SIZE / 3) ** 2 + (y - SIZE / 2) ** 2 < (SIZE / 10) ** 2).astype(float).ravel()
    normal, right = np.zeros((2, 2)), np.zeros(2)
    estimates = []
    blocks = [bh.store().watch(f"field.{rank}", timeout=60) for rank in range(ranks)]
    for parts in zip(*blocks, strict=True):
        before, after = np.concatenate([block for _, block in parts], axis=1)
        rate = ((after - before)[1:-1, 1:-1] / DT).ravel()
        columns = np.stack([laplacian(before).ravel(), heater])
        normal += columns @ columns.T
        right += columns @ rate
        step = parts[0][0]
        estimates.append((step, *np.linalg.lstsq(normal, right, rcond=None)[0]))
    return estimates


def compiled(prefix: Path, folder: Path, ranks: int) -> Path:
    """Compiles the solver: the program."""
    source, out = Path(__file__).parent / "c/heat.c", folder / "heat"
    compiler = ["mpicc", "-DUSE_MPI"] if ranks > 1 else ["cc"]
    where = [f"-I{prefix}/include", f"-L{prefix}/lib", f"-Wl,-rpath,{prefix}/lib"]
    subprocess.run([*compiler, "-std=c11", "-O2", "-o", out, source, *where, "-lbridgehead"], check=True)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--prefix", type=Path, required=True, help="where the C library was installed")
    parser.add_argument("--ranks", type=int, default=1, help="MPI ranks of the solver")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        heat = compiled(options.prefix.resolve(), Path(folder), options.ranks)
        command = f"{heat} {TRUTH[0]} {TRUTH[1]} {FIELDS}"
        p = bh.Pipeline("c-solver")
        p.add(bh.program(command, ranks=options.ranks) if options.ranks > 1 else bh.program(command))
        estimates = p.add(fit, options.ranks)
        with p.run(cpus=options.ranks + 1) as run:  # The solver and the task that follows it run at the same time.
            for step, diffusivity, strength in run[estimates].result():
                print(f"field {step:2}: diffusivity {diffusivity:.4f}, heater {strength:.5f}")
        print(f"the truth:  diffusivity {TRUTH[0]:.4f}, heater {TRUTH[1]:.5f}")
