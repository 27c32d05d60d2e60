"""Laws of a cluster that keeps accounts: an account that is not the user's is refused by name, and his own one is charged. This
is a second cluster beside the other tests' one, with slurmdbd."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import ROOT, TOOLS, Cluster
from support import User, check

REFUSED = 7


@pytest.fixture(scope="module")
def clerk(cluster: Cluster) -> Iterator[User]:
    """A user of the cluster with accounts; `chemistry` is his one."""
    state = cluster.state.with_name(cluster.state.name + "-acct")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    first, second, third = cluster.settings["SUBNET"].split(".")
    subnet = f"{first}.{second}.{(int(third) + 1) % 256}"
    shared = [word for line in (cluster.state / "etc/shares").read_text().split() for word in ("--share", line)]
    words = ["--nodes", "1", "--accounting", "--rest-port", str(port), "--subnet", subnet, *shared]
    env = {**os.environ, "TESTSLURM_STATE": str(state)}
    done = subprocess.run([TOOLS / "up", *words], env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    try:
        user = User(Cluster(state), "hpcuser")
        user.home.parent.mkdir()
        shutil.chown(user.home.parent, user.name, user.name)
        yield user
    finally:
        subprocess.run([TOOLS / "down"], env=env, capture_output=True, check=False)
        Path(f"{state}.lock").unlink(missing_ok=True)


@pytest.mark.parametrize("door", ["rest", "cli"])
def test_an_account_that_is_not_the_users_is_refused_and_his_own_is_charged(clerk: User, door: str) -> None:
    way: list[object] = ["--slurm-door", door]
    way += ["--rest-url", "http://ctl:6820", "--token-file", clerk.token] if door == "rest" else []
    asked = [*way, "--nodes", 1, "--cpus", 1, "--time", "10m", "--account"]
    script = Path(__file__).with_name("pipelines.py")
    for account in ("physics", "alchemy"):
        words = ["submit", "--on", "slurm", *asked, account, script, "sweep", clerk.new_notes(), 2, 0.1]
        clerk.check(*words, code=REFUSED, err=("account", "sacctmgr show assoc"))
    run = clerk.submit("sweep", 2, 0.1, on=[*asked, "chemistry"])
    check(run)
    (job,) = clerk.cluster.jobs()[-1:]
    assert (job["JobName"], job["Account"]) == (run.id, "chemistry")
