"""A home of its own for this suite, the programs that it runs, and the law that no test leaves anything behind. `run` gives it a
machine of its own: processes, /tmp and /dev/shm are seen by nobody else, so that what is left there is ours."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import support


@pytest.fixture(scope="session", autouse=True)
def home() -> Iterator[Path]:
    # A socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="home-", dir="/tmp"))
    sockets = tempfile.mkdtemp(prefix="bhm-", dir="/tmp")
    os.environ["BRIDGEHEAD_HOME"] = str(folder)
    os.environ["XDG_RUNTIME_DIR"] = sockets
    # Many more ranks than processors, which no agent can know: one of Open MPI that waits lets the others work.
    os.environ["OMPI_MCA_mpi_yield_when_idle"] = "1"  # noqa: SIM112 -- its own spelling
    yield folder
    support.check_nothing_left()
    shutil.rmtree(sockets)
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def nothing_left(home: Path) -> Iterator[None]:
    """After each test, whatever happened in it."""
    before = support.surroundings()
    yield
    support.check_nothing_left(before)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test program for this environment's MPI as Debian has it."""
    return support.build(support.debian_compiler(support.FAMILY), tmp_path_factory.mktemp("debian") / "gang")


@pytest.fixture(scope="session")
def wheel_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test program for the MPI of this environment's wheel."""
    return support.build(support.wheel_compiler(), tmp_path_factory.mktemp("wheel") / "gang")


@pytest.fixture(scope="session")
def other_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test program for the other MPI."""
    return support.build(support.debian_compiler(support.OTHER), tmp_path_factory.mktemp("other") / "gang")
