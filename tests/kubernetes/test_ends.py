"""A run can be cancelled in every phase and leaves nothing; suspended, it gives its nodes back and goes on."""

from __future__ import annotations

import pytest
from handed import wait_until
from support import User, check, gone


@pytest.mark.parametrize("flavour", ["volcano", "kueue", "appwrapper", "indexed-job"])
def test_cancel_leaves_no_object(user: User, flavour: str) -> None:
    run = user.submit("values", 8, 30, on=["--nodes", 2, "--flavor", flavour])
    run.wait_phase("running")
    user.check("cancel", run.id, out="cancelled")
    gone(run)
    assert run.phase() == "cancelled"
    user.check("cancel", run.id, code=4)


def test_a_run_that_waits_is_cancelled_too(user: User) -> None:
    run = user.submit("values", 1, 1, on=["--nodes", 3, "--gpus", 9])
    user.check("cancel", run.id, out="cancelled")
    gone(run)
    assert run.phase() == "cancelled"


def test_what_was_cancelled_goes_on_with_what_finished(user: User) -> None:
    run = user.submit("arrays", 6, 1.0, on=["--nodes", 2])
    run.wait_finished(2)
    user.check("cancel", run.id, out="cancelled")
    gone(run)
    finished = run.status()["tasks"]["finished"]
    assert finished >= 2
    user.check("resume", run.id, limit=200, out="finished")
    status = check(run)
    assert status["attempt"] >= 2
    assert run.count("task-assigned") < 7 + 6, "not all of them ran twice"


@pytest.mark.parametrize("flavour", ["volcano", "kueue", "indexed-job"])
def test_a_suspended_run_gives_its_nodes_back_and_goes_on(user: User, flavour: str) -> None:
    user.cluster.volume("suspended", user.namespace)
    queue = ["--queue", "team"] if flavour == "kueue" else []
    run = user.submit("arrays", 8, 1.0, on=["--nodes", 2, "--flavor", flavour, "--volume", "suspended", *queue])
    run.wait_finished(2)
    user.check("suspend", run.id, out="suspended")
    wait_until(lambda: not run.pods(), "its pods are gone", state=run.pods)
    assert run.phase() in ("queued", "paused"), run.status()
    user.check("resume", run.id, limit=250, out="finished")
    assert check(run)["attempt"] >= 2


def test_without_a_volume_suspending_keeps_what_is_here(user: User) -> None:
    run = user.submit("arrays", 8, 1.0, on=["--nodes", 2])
    run.wait_finished(2)
    user.check("suspend", run.id, out="suspended")
    gone(run)
    assert run.phase() == "paused"
    user.check("resume", run.id, limit=250, out="finished")
    check(run)


def test_a_volume_keeps_the_results_when_the_pods_are_gone(user: User) -> None:
    user.cluster.volume("kept", user.namespace)
    run = user.submit("arrays", 3, 0.1, on=["--nodes", 2, "--volume", "kept"])
    ended = lambda: all(pod["status"]["phase"] in ("Succeeded", "Failed") for pod in run.pods()) and run.pods()  # noqa: E731
    wait_until(ended, "the pods have ended", 150, state=run.pods)
    assert check(run)["phase"] == "finished"
    assert user.json("results", run.id)[-1]["kept"] in ("journal", "file")


def test_a_task_that_runs_out_of_memory_is_named_as_such(user: User) -> None:
    run = user.submit("eats", 4096, on=["--nodes", 1, "--memory", "600MiB", "--kubernetes", "restarts=0"])
    run.wait_phase("failed", "lost", limit=200)
    assert "memory" in run.why().lower(), run.why()
