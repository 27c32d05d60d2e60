"""Laws of an allocation that Slurm takes back for a partition of a higher rank: the run waits, goes on in a new attempt, and the
attempts that were lost count as preempted."""

from __future__ import annotations

import bridgehead as bh
from cluster import Cluster, wait_until
from support import User, check


def test_a_run_that_is_preempted_goes_on_after_its_requeue(cluster: Cluster, user: User) -> None:
    where = ["--partition", "low", "--slurm", "nodelist=n3,n4"]
    run = user.submit("sweep", 40, 1, on=["--nodes", 2, "--cpus", 2, "--time", "15m", *where])
    run.wait_noted("end", 6)
    done = user.run(
        "sbatch",
        "--parsable",
        "-p",
        "high",
        "-N2",
        "-w",
        "n3,n4",
        "--exclusive",
        "-o",
        "/dev/null",
        "--wrap",
        "sleep 3",
    )
    assert done.code == 0, done
    wait_until(
        lambda: "RUNNING" not in [job["JobState"] for job in cluster.jobs(run.id)], "the run's job is taken back"
    )
    finished = run.count("task-finished")
    status = check(run, again=True)
    assert finished >= 6
    assert bh.connect(str(run.folder)).results() == {"total": sum(n * n for n in range(40))}
    assert run.count("run-started") == 2
    assert status["failures"] == []
    assert (status["interruptions"]["preempted"], status["interruptions"]["lost"]) == (1, 0)
    assert cluster.jobs(run.id)[0]["Restarts"] == "1"
