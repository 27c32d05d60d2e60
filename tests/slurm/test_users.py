"""Laws of runs that share nodes: several users' and several of one user never meet, and nobody reads another's."""

from __future__ import annotations

import bridgehead as bh
from cluster import Cluster
from support import User, check

SHARED_NODES = ["--nodes", 2, "--cpus", 1, "--time", "10m", "--slurm", "nodelist=n2,n3"]


def test_two_users_and_two_runs_of_one_work_on_the_same_nodes_at_once(
    cluster: Cluster, user: User, other: User
) -> None:
    runs = [someone.submit("gates", 2, on=SHARED_NODES) for someone in (user, other, user)]
    for run in runs:
        run.wait_noted("begin", 2)
    assert [run.nodes() for run in runs] == [["n2", "n3"]] * 3
    # Each sees its own only.
    assert runs[1].id not in user.check("ps", "--all")
    user.check("status", runs[1].id, code=3)
    assert user.run("ls", runs[1].folder).code != 0
    assert user.run("bridgehead", "cancel", runs[1].folder).code != 0
    other.check("cancel", runs[1].id)
    check(runs[1], "cancelled")
    assert [run.phase() for run in (runs[0], runs[2])] == ["running", "running"]
    for run in (runs[0], runs[2]):
        run.open_gate()
    for run in (runs[0], runs[2]):
        check(run)
        assert sorted(bh.connect(str(run.folder)).results().values()) == ["n2", "n3"]
