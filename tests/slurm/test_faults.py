"""Laws of what happens when a part of the cluster is lost in the middle of a run: it ends right, what was lost runs again,
counted as a lost node's and not as the user's, and nothing that finished runs again unless the journal says why."""

from __future__ import annotations

from typing import Any

import bridgehead as bh
import pytest
from cluster import Cluster
from support import ENDED, Submitted, User, check

TASKS = 36
AWAY = ["--nodes", 3, "--cpus", 2, "--time", "15m", "--slurm", "exclude=n1"]
"""On the nodes that the run with a time limit does not use."""
EXPECTED = sum(n + 1000 * ((n + TASKS // 2) % TASKS) for n in range(TASKS))


def begun(user: User) -> Submitted:
    """A run that is in the middle of its tasks on three nodes."""
    run = user.submit("moved", TASKS, 1, on=AWAY)
    run.wait_noted("end", 8)
    return run


def check_survived(run: Submitted) -> dict[str, Any]:
    status = check(run, again=True)
    assert status["failures"] == []
    assert bh.connect(str(run.folder)).results() == {"total": EXPECTED}
    return status


@pytest.mark.parametrize("what", ["kill", "freeze", "cut"])
def test_a_node_is_lost_and_its_tasks_run_elsewhere(cluster: Cluster, user: User, what: str) -> None:
    run = begun(user)
    victim = run.nodes()[-1]
    with cluster.fault(what, victim):
        run.wait_phase(*ENDED, "lost")
    check_survived(run)
    assert run.count("agent-lost") == 1, run.story()
    assert run.count("task-retried") + run.count("task-reset") > 0
    assert run.count("run-started") == 1, "the loss of one node costs its tasks, not the job"


def test_the_node_of_the_head_is_lost_and_the_run_goes_on_in_a_new_attempt(cluster: Cluster, user: User) -> None:
    run = begun(user)
    with cluster.fault("kill", run.nodes()[0]):
        pass  # It boots again at once, as after a power cut.
    status = check_survived(run)
    assert run.count("run-started") == 2
    assert status["interruptions"]["lost"] == 1


def test_a_controller_that_is_away_has_no_effect_on_a_run(cluster: Cluster, user: User) -> None:
    run = user.submit("sweep", 60, 1, on=["--nodes", 2, "--cpus", 2, "--time", "15m", "--slurm", "exclude=n1"])
    run.wait_noted("end", 4)
    with cluster.fault("stop-slurmctld", "ctl"):
        run.wait_noted("end", 60)
        # It has ended, and whoever asks the folder is told so while there is no Slurm to ask.
        assert run.wait_phase(*ENDED) == "finished"
    check(run)


def test_a_short_cut_of_the_network_is_sat_out(cluster: Cluster, user: User) -> None:
    run = begun(user)
    ended = len(run.hosts())
    with cluster.fault("cut", run.nodes()[-1]):
        run.wait_noted("end", ended + 6)
    check_survived(run)
