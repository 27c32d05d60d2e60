"""A home of its own for this suite, and the seed of what is drawn at random."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import support
from support import wait_until


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="run what is drawn at random with this seed only")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        told = metafunc.config.getoption("--seed")
        metafunc.parametrize("seed", support.SEEDS if told is None else [told])


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("home")
    # A socket's path must be short, and only what this suite leaves behind may be found there.
    sockets = tempfile.mkdtemp(prefix="bhf-", dir="/tmp")
    os.environ["BRIDGEHEAD_HOME"] = str(folder)
    os.environ["XDG_RUNTIME_DIR"] = sockets
    yield folder
    support.check_nothing_left(folder)
    shutil.rmtree(sockets)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A home on a disk of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    yield folder
    # A head that is about to end may still hold its log open.
    wait_until(
        lambda: subprocess.run(["umount", folder], capture_output=True, check=False).returncode == 0,
        "the small disk is free",
    )
