"""Laws of cancelling at every moment: the run ends as cancelled, its jobs leave the queue, and no process of it is left on any
node, whatever its tasks started. It can be resumed."""

from __future__ import annotations

from cluster import Cluster, wait_until
from support import Submitted, User, check

ONE = ["--nodes", 1, "--cpus", 1, "--time", "10m"]


def test_a_run_is_cancelled_while_its_job_waits(cluster: Cluster, user: User, full: str) -> None:
    run = user.submit("gates", 1, on=[*ONE, "--slurm", f"nodelist={full}"])
    wait_until(lambda: [job["JobState"] for job in cluster.jobs(run.id)] == ["PENDING"], "the job waits")
    assert run.phase() == "queued"
    user.check("cancel", run.id)
    check(run, "cancelled")
    assert run.noted() == []


def test_a_run_is_cancelled_at_once_and_while_its_job_starts(cluster: Cluster, user: User) -> None:
    at_once = user.submit("breed", 2, on=ONE)
    user.check("cancel", at_once.id)
    starting = user.submit("breed", 2, on=["--nodes", 2, "--cpus", 1, "--time", "10m"])
    wait_until(lambda: cluster.jobs(starting.id)[0]["JobState"] == "RUNNING", "the job starts")
    user.check("cancel", starting.id)
    check(at_once, "cancelled")
    check(starting, "cancelled")


def cancelled_running(user: User) -> Submitted:
    run = user.submit("breed", 4, on=["--nodes", 2, "--cpus", 2, "--time", "10m"])
    run.wait_noted("begin", 4)
    user.check("cancel", run.id, "--reason", "by hand")
    return run


def test_a_run_is_cancelled_in_the_middle_and_can_be_resumed(user: User) -> None:
    run = cancelled_running(user)
    check(run, "cancelled")
    assert "by hand" in user.check("why", run.id)
    run.open_gate()
    user.check("resume", run.id)
    status = check(run, again=True)
    assert status["tasks"]["finished"] == 4


def test_a_job_that_is_ended_by_scancel_leaves_nothing(cluster: Cluster, user: User) -> None:
    run = user.submit("breed", 4, on=["--nodes", 2, "--cpus", 2, "--time", "10m"])
    run.wait_noted("begin", 4)
    assert user.run("scancel", "-n", run.id).code == 0
    wait_until(lambda: not cluster.queue(run.id), "the job has left the queue")
    wait_until(lambda: not cluster.processes(run.id), "no process is left", state=lambda: cluster.processes(run.id))
    run.wait_phase("lost", "paused", "cancelled")
    run.open_gate()
    user.check("resume", run.id)
    check(run, again=True)
