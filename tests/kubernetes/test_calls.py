"""What a run costs the API server does not grow with its tasks."""

from __future__ import annotations

from collections import Counter

from calls import Audit
from support import User, check


def calls_of(user: User, audit: Audit, tasks: int) -> Counter[str]:
    """What is asked for one run of so many tasks from its submission until its results are here."""
    with audit.counted() as counts:
        run = user.submit("values", tasks, 0.05, on=["--nodes", 2])
        user.check("watch", run.id, out="finished")
        user.check("results", run.id)
    check(run)
    print(f"{tasks} tasks: {counts.total()} requests, {dict(counts)}")
    return counts


def test_the_requests_of_a_run_are_bounded_and_do_not_grow_with_its_tasks(counted: tuple[User, Audit]) -> None:
    user, audit = counted
    few, many = calls_of(user, audit, 10), calls_of(user, audit, 200)
    looks = ("list jobs", "list pods", "get podgroups", "get pods/portforward", "create pods/portforward", "get /apis")
    # What is made is the same; how often is looked depends on how long the gang takes to start, a few looks more or less.
    assert {what: n for what, n in few.items() if what.split()[0] in ("create", "patch") and what not in looks} == {
        what: n for what, n in many.items() if what.split()[0] in ("create", "patch") and what not in looks
    }
    assert few.total() > 0 and many.total() <= few.total() + 20 and many.total() <= 80, (few, many)
