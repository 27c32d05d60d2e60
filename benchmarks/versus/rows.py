"""What is measured: the rows of the table, their units and targets. No measuring here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Target:
    """What a row should reach.

    Attributes:
        bound: the least ratio to `peer`, or without a peer what the figure itself may be at the most, or the `least`.
        peer: the system that Bridgehead is compared to.
        least: without a peer: the figure is to be at least the bound.
    """

    bound: float
    peer: str | None = None
    least: bool = False


@dataclass(frozen=True)
class Row:
    """A figure that each system gives once a round.

    Attributes:
        key: its name in the JSON document.
        group: what is measured in one go, in one process.
        title: for people.
        unit: of the figures.
        better: whether more or less of it is better. Ratios are always "so many times better than the peer".
        against: the peers' row, where Bridgehead has more than one way to do what they have one for.
    """

    key: str
    group: str
    title: str
    unit: str
    better: Literal["more", "less"]
    targets: tuple[Target, ...] = ()
    against: str | None = None


ROWS = (
    Row("submit", "noop", "no-op tasks, a submit each", "tasks/s", "more", (Target(3, "pool"), Target(25, "ray"))),
    Row("map", "noop", "no-op tasks, map in chunks of 64", "tasks/s", "more"),
    Row("cpu", "noop", "CPU time of a no-op task, all processes", "µs", "less", (Target(30),)),
    Row(
        "pipeline",
        "noop",
        "no-op tasks through a pipeline",
        "tasks/s",
        "more",
        (Target(3, "pool"), Target(25, "ray")),
        against="submit",
    ),
    Row("trip-p50", "trip", "round trip of one task, p50", "µs", "less", (Target(1, "pool"), Target(10, "ray"))),
    Row("trip-p99", "trip", "round trip of one task, p99", "µs", "less"),
    Row("start", "start", "start of a script to its first result", "s", "less", (Target(0.3),)),
    Row("true", "programs", "/bin/true as a task", "programs/s", "more", (Target(0.8, "xargs"),)),
    Row("put-64mib", "store", "put of a 64 MiB array, warm", "ms", "less", (Target(5, "ray"),)),
    Row("put-get-1kib", "store", "put and get of 1 KiB", "µs", "less", (Target(50, "ray"),)),
    Row("read-256mib", "store", "a task that takes a stored 256 MiB array", "ms", "less", (Target(2),)),
)

GROUPS = tuple(dict.fromkeys(row.group for row in ROWS))
