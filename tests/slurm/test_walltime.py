"""Laws of a time limit that is shorter than the run: it goes on in follow-up jobs to its end, and no task's own retries are used
up by that. The run is started with the session (`conftest.py`)."""

from __future__ import annotations

import bridgehead as bh
from cluster import Cluster
from conftest import SWEEP_SECONDS
from support import Submitted, check


def test_a_sweep_of_two_minutes_goes_on_through_time_limits_of_one(long_run: Submitted, cluster: Cluster) -> None:
    status = check(long_run, again=True, limit=420)
    tasks = SWEEP_SECONDS // 2
    assert bh.connect(str(long_run.folder)).results() == {"total": sum(n * n for n in range(tasks))}
    assert status["failures"] == []
    assert long_run.count("run-started") >= 2
    interruptions = status["interruptions"]
    assert interruptions["walltime"] == long_run.count("run-started") - 1, interruptions
    assert long_run.count("task-retried") == 0, "what cannot end in time is not started, or waits for the next job"
    states = [job["JobState"] for job in cluster.jobs(long_run.id)]
    assert len(states) >= 2 and "TIMEOUT" not in states, states
