"""Laws of programs in Rust (`examples/rust-mpi`, with the crate `mpi`): built for this environment's MPI, they run as gangs like programs
in C, on any number of ranks and agents, and find the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from ctypes.util import find_library
from pathlib import Path

import bridgehead as bh
import pytest
from support import FAMILY, debian_compiler

ROOT = Path(__file__).resolve().parents[2]
BUILD_LIMIT = 600
"""Seconds that a first build may take."""


def has_libclang() -> bool:
    """The crate's build reads the header of the MPI with it."""
    return find_library("clang") is not None or any(Path("/usr/lib").glob("llvm-*/lib/libclang.so*"))


@pytest.fixture(scope="session")
def plate() -> Path:
    """The solver for Debian's MPI of this family, kept between runs of the tests."""
    compiler = debian_compiler(FAMILY)
    if shutil.which("cargo") is None:
        pytest.skip("there is no cargo")
    if not has_libclang():
        pytest.skip("there is no libclang: Debian has it in libclang-dev")
    target = ROOT / "target/rust-mpi" / FAMILY
    words = ["cargo", "build", "--locked", "--quiet", "--target-dir", str(target)]
    done = subprocess.run(
        words,
        cwd=ROOT / "examples/rust-mpi",
        env={**os.environ, "MPICC": compiler},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target / "debug/plate"


@pytest.mark.timeout(BUILD_LIMIT)
@pytest.mark.parametrize("agents", [1, 2])
def test_a_solver_in_rust_finds_the_same_on_any_number_of_ranks(plate: Path, agents: int) -> None:
    p = bh.Pipeline("rust")
    gangs = {ranks: p.add(bh.program(f"{plate} 32 200", ranks=ranks)) for ranks in (1, 2, 4)}
    spread = p.add(bh.program(f"{plate} 32 200", ranks=4, ranks_per_node=4 // agents))
    with p.run(agents=agents, cpus=8) as run:
        lines = {ranks: run[gang].result(90).stdout for ranks, gang in gangs.items()}
        assert run[spread].result(90).stdout == lines[4]
    for ranks, line in lines.items():
        assert re.fullmatch(
            rf"ranks {ranks} points 32 steps 200 time 0.03673 heat 0.\d{{6}} error \d.\de-\d\d?\n", line
        ), line
    assert len({line.split("heat")[1] for line in lines.values()}) == 1, lines


@pytest.mark.timeout(BUILD_LIMIT)
def test_a_solver_in_rust_that_is_started_wrongly_fails_its_gang_with_its_words(plate: Path) -> None:
    p = bh.Pipeline("rust")
    gang = p.add(bh.program(f"{plate} 1", ranks=2))  # Fewer points than ranks.
    with p.run(cpus=4) as run:
        error = run[gang].exception(90)
    assert isinstance(error, bh.TaskError) and error.exit_code == 2, error
    assert "a number of 2 or more is needed" in str(error)
