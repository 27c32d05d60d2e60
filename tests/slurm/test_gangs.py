"""Laws of gangs: a run whose parts need different nodes is several jobs in a chain, and a gang starts whole or not at all."""

from __future__ import annotations

import bridgehead as bh
from cluster import Cluster, wait_until
from support import User, check


def test_a_gang_takes_what_another_made(cluster: Cluster, user: User) -> None:
    run = user.submit("groups", on=["--cpus", 2, "--time", "10m"])
    check(run)
    assert bh.connect(str(run.folder)).results() == {"total": sum(n + 1000 * (3 - n) for n in range(4))}
    jobs = sorted(cluster.jobs(run.id), key=lambda job: int(job["JobId"]))
    assert [job["NumNodes"] for job in jobs] == ["1", "2"]
    assert [job["JobState"] for job in jobs] == ["COMPLETED", "COMPLETED"]


def test_a_gang_that_lacks_a_node_waits_for_it_by_name_and_starts_whole(cluster: Cluster, user: User) -> None:
    with cluster.fault("cut", "n3"):
        run = user.submit("gates", 3, on=["--nodes", 3, "--cpus", 1, "--time", "10m", "--slurm", "nodelist=n2,n3,n4"])
        wait_until(lambda: "n3" in user.check("why", run.id), "the missing node is named", every=1.0)
        assert run.noted() == [], "nothing starts before all have joined"
    run.open_gate()
    check(run, again=True)
    assert run.hosts() == {"n2", "n3", "n4"}
