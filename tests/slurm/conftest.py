"""The cluster and its users, for all tests of this folder; the run that meets its time limit, which starts first and is looked
at last, because Slurm takes minutes over it; and the law that nothing is left on any node."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, wait_until
from support import BIN, SCRIPT, Submitted, User

Submission = subprocess.Popen[str]
WALLTIME = "test_walltime.py"
SWEEP_SECONDS = 120
"""Of work for one worker in the run that has a minute at a time."""


_interrupted = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name == WALLTIME)
    for item in items:
        item.add_marker(pytest.mark.timeout(480 if item.path.name == WALLTIME else 300))


def pytest_keyboard_interrupt() -> None:
    global _interrupted
    _interrupted = True


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    state = os.environ.get("TESTSLURM_STATE")
    if not state or not Path(state, "run/up").exists():
        pytest.skip("no cluster is up: make test-slurm brings one up")
    cluster = Cluster(Path(state))
    wait_until(cluster.up, "every node is up")
    yield cluster
    if _interrupted:  # What runs then ends with the cluster.
        return
    left = [line for user in cluster.settings["JOB_USERS"].split(",") for line in cluster.processes(f"USER={user}")]
    assert left == []
    assert cluster.memory_left() == []


@pytest.fixture(scope="session")
def users(cluster: Cluster) -> Iterator[list[User]]:
    """Two ordinary users; what they need is where the nodes and they can read it."""
    users = [User(cluster, name) for name in cluster.settings["JOB_USERS"].split(",")]
    for user in users:
        folder = user.home.parent
        folder.mkdir(exist_ok=True)
        shutil.chown(folder, user.name, user.name)
        for host in ["ctl", *cluster.nodes]:
            done = user.run("bridgehead", "--version", host=host)
            assert done.code == 0, f"{user.name} cannot run {BIN}/bridgehead on {host}: {done}"
    yield users
    for user in users:
        shutil.rmtree(user.home.parent)


@pytest.fixture(scope="session")
def user(users: list[User]) -> User:
    return users[0]


@pytest.fixture(scope="session")
def other(users: list[User]) -> User:
    return users[1]


@pytest.fixture(autouse=True)
def tidy(cluster: Cluster) -> Iterator[None]:
    """What a test that failed left in the queue is ended, so that the next one finds its nodes free."""
    yield
    left = [line.split() for line in cluster.slurm("squeue", "-h", "-a", "-o", "%A %P").splitlines()]
    jobs = {job for job, partition in left if partition != "short"}
    if jobs:
        cluster.slurm("scancel", *jobs)
        wait_until(lambda: not jobs & set(cluster.slurm("squeue", "-h", "-a", "-o", "%A").split()), f"{jobs} end")


@pytest.fixture
def full(cluster: Cluster, user: User) -> Iterator[str]:
    """A node that another job has to itself."""
    node = cluster.nodes[-1]
    done = user.run("sbatch", "--parsable", "-w", node, "--exclusive", "-o", "/dev/null", "--wrap", "sleep 600")
    assert done.code == 0, done
    wait_until(lambda: cluster.node_states()[node] == "allocated", f"{node} is full")
    yield node
    user.run("scancel", done.out.strip())


@pytest.fixture(scope="session", autouse=True)
def started_long_run(request: pytest.FixtureRequest) -> tuple[Submission, Path] | None:
    """A sweep of two minutes with a time limit of one, on the first node, which no other test disturbs: its submission."""
    if not any(item.path.name == WALLTIME for item in request.session.items):
        return None
    user: User = request.getfixturevalue("user")
    notes = user.new_notes()
    options = ["--nodes", 1, "--cpus", 1, "--partition", "short", "--time", "1m", "--slurm", "nodelist=n1"]
    words = ["submit", "--on", "slurm", *options, SCRIPT, "sweep", notes, SWEEP_SECONDS // 2, 2]
    return user.start("bridgehead", *words), notes


@pytest.fixture(scope="session")
def long_run(started_long_run: tuple[Submission, Path], user: User) -> Submitted:
    submission, notes = started_long_run
    out, err = submission.communicate(timeout=60)
    assert submission.returncode == 0, err
    return Submitted(user, out.strip(), notes)
