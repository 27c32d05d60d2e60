"""Laws of what a task is told of its surroundings."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import bridgehead as bh
import pytest
from bridgehead import _context

if TYPE_CHECKING:
    from bridgehead._bridgehead import Worker

SECOND = 1_000_000_000
START = 1_700_000_000


class Connection:
    """A worker's connection whose call began at `START`."""

    def __init__(self, limit_ms: int, end_ns: int) -> None:
        self.ends = (limit_ms, START * SECOND, end_ns)

    def current(self) -> tuple[Any, ...]:
        return (7, 1, "task", [], *self.ends, (0, 1))


def check(monkeypatch: pytest.MonkeyPatch, limit_ms: int, end_s: int, deadline: float | None) -> None:
    """A task with this limit, in an allocation that ends so many seconds after the call began, sees this deadline."""
    end_ns = (START + end_s) * SECOND if end_s else 0
    connection = cast("Worker", Connection(limit_ms, end_ns))
    place = _context.Place(connection=connection, run="r", node=0, number=1, run_dir="/r")
    monkeypatch.setattr(_context, "here", place)
    expected = None if deadline is None else START + deadline
    assert bh.current().deadline == expected


@pytest.mark.parametrize(
    ("limit_ms", "end_s", "deadline"),
    [(0, 0, None), (1500, 0, 1.5), (0, 60, 60), (1500, 60, 1.5), (90_000, 60, 60)],
)
def test_the_deadline_is_the_earlier_of_the_tasks_own_and_the_allocations(
    monkeypatch: pytest.MonkeyPatch, limit_ms: int, end_s: int, deadline: float | None
) -> None:
    check(monkeypatch, limit_ms, end_s, deadline)


def test_what_remains_counts_down_to_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    check(monkeypatch, 0, 60, 60)
    monkeypatch.setattr(time, "time", lambda: START + 50.0)
    assert bh.current().remaining() == 10.0
