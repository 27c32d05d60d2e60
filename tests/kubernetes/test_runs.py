"""A pipeline that runs on a laptop runs on Kubernetes unchanged, in every flavour, and its results come home."""

from __future__ import annotations

import json
import re

import pytest
from cluster import Cluster
from handed import ROOT
from support import Submitted, User, check, gone

FLAVOURS = ["volcano", "kueue", "appwrapper", "indexed-job"]


def test_the_surrogate_example_runs_as_one_gang_of_three_pods(user: User) -> None:
    script = ROOT / "examples/surrogate.py"
    words = ["submit", script, "--on", "kubernetes", "--nodes", 3, "--queue", "team", "--json"]
    run = Submitted(user, json.loads(user.check(*words))["run"])
    user.check("watch", run.id, limit=280, out="finished")
    check(run)
    agents = run.status()["agents"]
    assert len({agent["host"] for agent in agents}) == 3, agents
    assert all(agent["store"]["used"] for agent in agents), "every pod made fields"
    read = (
        "import sys, bridgehead as bh\n"
        "run = bh.connect(sys.argv[1])\n"
        "print([round(value['score'], 2) for value in run.results().values()])\n"
    )
    done = user.run("python", "-c", read, run.id)
    assert done.code == 0, done
    assert 0.9 < json.loads(done.out)[0] <= 1.0


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_arrays_move_between_the_pods_of_every_flavour(user: User, flavour: str) -> None:
    queue = ["--queue", "team"] if flavour in ("volcano", "kueue") else []
    run = user.submit("arrays", 6, 0.2, on=["--nodes", 3, "--flavor", flavour, *queue])
    user.check("watch", run.id, limit=200, out="finished")
    check(run)
    said = re.findall(r"field \d on (\S+)", user.check("logs", run.id))
    assert len(said) == 6 and len(set(said)) > 1, f"what one task takes was made in several pods: {said}"
    total = user.json("results", run.id)[-1]
    assert total["name"].endswith("total") and total["kept"] in ("journal", "file"), total
    user.check("cancel", run.id, code=4)  # There is nothing to cancel any more.


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_plan_is_the_same_each_time_and_the_api_server_takes_it(user: User, cluster: Cluster, flavour: str) -> None:
    words = ["plan", "--on", "kubernetes", "--flavor", flavour, "--nodes", 3, "--json", ROOT / "examples/surrogate.py"]
    first, second = (json.loads(user.check(*words)) for _ in range(2))
    assert first == second
    (manifest,) = first["manifests"]
    cluster.kubectl("apply", "--dry-run=server", "-n", "hpc", "-f", "-", text=manifest["text"])


def test_a_run_that_fails_says_so_and_is_not_started_again(user: User) -> None:
    run = user.submit("fails", on=["--nodes", 1])
    user.check("watch", run.id, code=1, out="failed")
    check(run, "failed")
    assert "ValueError: poison" in run.why()
    assert run.status()["attempt"] == 1


def test_the_users_own_files_travel_and_pods_have_no_more_than_they_need(restricted: User) -> None:
    run = restricted.submit("around", on=["--nodes", 1, "--namespace", restricted.namespace, "--memory", "1GiB"])
    restricted.check("watch", run.id, out="finished")
    read = "import sys, json, bridgehead as bh\nprint(json.dumps(list(bh.connect(sys.argv[1]).results().values())[0]))"
    done = restricted.run("python", "-c", read, run.id)
    assert done.code == 0, done
    seen = json.loads(done.out)
    assert seen["uid"] not in (0, None) and seen["gid"] == 0, "group 0, and some user"
    assert seen["home"] and seen["cwd"] and not seen["token"] and seen["secrets"] == []
    assert (seen["beside"], seen["data"]) == ("carried", "a file of the project")
    assert 0 < seen["shm"] <= 1 << 28, "a quarter of the memory"


def test_what_is_too_large_to_travel_with_the_job_is_brought_once_the_gang_has_started(user: User) -> None:
    run = user.submit("heavy", 16, on=["--nodes", 2])
    user.check("watch", run.id, out="finished")
    check(run)


def test_a_script_submits_and_waits_as_it_would_anywhere(user: User) -> None:
    script = (
        "import bridgehead as bh, pipelines\n"
        "run = pipelines.build('arrays', ['4', '0.2']).submit(on=bh.Kubernetes(nodes=2))\n"
        "print(run.wait(), *run.results().values(), run.logs().count('field'))\n"
    )
    done = user.run("python", "-c", script)
    assert (done.code, done.out) == (0, "finished 6.0 4\n"), done


def test_two_users_run_at_once_and_do_not_meet(user: User, other: User) -> None:
    runs = [who.submit("arrays", 3, 1.0, on=["--nodes", 2]) for who in (user, other, user)]
    for run in runs:
        run.user.check("watch", run.id, out="finished")
        check(run)
    other.check("status", runs[0].id, code=3)


def test_a_submission_that_is_repeated_makes_one_job(user: User, cluster: Cluster) -> None:
    run = user.submit("values", 2, 0.1, on=["--nodes", 1])
    record = json.loads((run.folder / "launches/1.json").read_text())
    (run.folder / "launches/1.json").write_text(json.dumps({**record, "job": None}))  # As if its answer had been lost.
    user.check("resume", run.id, "--detach")
    user.check("watch", run.id, out="finished")
    jobs = [name for name in cluster.objects(run.id) if name.startswith("Job/")]
    assert len(jobs) == 1, jobs
    gone_after_cancel(run)


def gone_after_cancel(run: Submitted) -> None:
    """The job of an ended run goes with its time to live; an administrator need not wait for it."""
    run.cluster.kubectl("delete", "jobs.batch.volcano.sh", "-n", "hpc", "-l", f"bridgehead.dev/run={run.id}")
    gone(run)
