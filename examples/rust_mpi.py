"""A solver in Rust on MPI ranks, run as gangs: builds `examples/rust-mpi` for an MPI and solves the same plate on 1 to 4 ranks, which
must all find the same heat.

    python examples/rust_mpi.py                    # with mpicc; --mpicc mpicc.mpich or mpicc.openmpi on Debian
    bridgehead run --agents 2 examples/rust_mpi.py

Needs Rust, libclang (Debian: libclang-dev) and the MPI's compiler. The program is an MPI program like any other: nothing of it knows
Bridgehead, and the agents start its ranks without mpirun.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from pathlib import Path

import bridgehead as bh

HERE = Path(__file__).resolve().parent
RANKS = (1, 2, 3, 4)


def built(mpicc: str, target: Path) -> Path:
    """Builds the solver for the MPI of this compiler: the program."""
    words = ["cargo", "build", "--release", "--locked", "--quiet", "--target-dir", str(target)]
    subprocess.run(words, cwd=HERE / "rust-mpi", env={**os.environ, "MPICC": mpicc}, check=True)
    return target / "release/plate"


def found(text: str) -> dict[str, float]:
    """What the solver's line says: numbers by name."""
    words = text.split()
    return {name: float(value) for name, value in zip(words[::2], words[1::2], strict=True)}


def main() -> None:
    """Builds the solver, runs it on all numbers of ranks at once, as far as there is room, and compares what they found."""
    parser = argparse.ArgumentParser(description="Runs a solver in Rust on MPI ranks.")
    parser.add_argument("--mpicc", default="mpicc", help="compiler of the MPI that it is built for")
    options = parser.parse_args()
    if shutil.which(options.mpicc) is None:
        raise SystemExit(f"there is no {options.mpicc}: name your MPI's compiler with --mpicc")
    program = built(options.mpicc, HERE.parent / "target/rust-mpi" / options.mpicc)
    p = bh.Pipeline("rust-mpi")
    gangs = [p.add(bh.program(f"{program} 96 1000", ranks=ranks, cpus=0.5)) for ranks in RANKS]
    with p.run() as run:
        lines = [run[gang].result().stdout for gang in gangs]
    print("".join(lines), end="")
    heats = {found(line)["heat"] for line in lines}
    if len(heats) != 1:
        raise SystemExit(f"the plates are not equally warm: {heats}")


if __name__ == "__main__":
    main()
