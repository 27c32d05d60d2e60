"""What is measured: the rows of the table with their targets, and who takes part in what. No measuring here.

The peer "plain" is the machine itself: numpy's copy into warm memory, or blocking sockets of Python.
"""

from __future__ import annotations

from versus.rows import Row, Target

MICRO, MILLI = "µs", "ms"

ROWS = (
    Row(
        "put-64mib",
        "node",
        "put of 64 MiB, warm; plain: `copyto` into warm memory",
        MILLI,
        "less",
        (Target(0.8, "plain"), Target(5, "ray")),
    ),
    Row(
        "create-64mib",
        "node",
        "`create`, fill and seal of 64 MiB; plain: the fill alone, of a warm array",
        MILLI,
        "less",
        (Target(0.9, "plain"),),
    ),
    Row(
        "put-get-1kib",
        "node",
        "put and get of 1 KiB on one node",
        MICRO,
        "less",
        (Target(50, "ray"), Target(100, "dragon")),
    ),
    Row(
        "writable-64mib",
        "node",
        "a view of 64 MiB that can be written, one page of it written; plain: `array.copy()`, then the same",
        MILLI,
        "less",
    ),
    Row(
        "readers",
        "readers",
        "16 processes reading one object of 256 MiB at once, in all; plain: as many threads over memory of their own process",
        "GB/s",
        "more",
        (Target(0.9, "plain"),),
    ),
    Row(
        "readers-one",
        "readers",
        "16 readers at once in all; plain: one reader alone on each core, one core's rate times the cores",
        "GB/s",
        "more",
        (Target(0.9, "plain"),),
    ),
    Row(
        "far-64mib",
        "far",
        "get of 64 MiB from another agent over TCP; plain: the same bytes over a blocking socket into warm memory",
        MILLI,
        "less",
        (Target(0.8, "plain"), Target(5, "ray")),
    ),
    Row(
        "far-1kib",
        "far",
        "get of 1 KiB from another agent, from Python to Python by way of both agents; plain: a ping-pong of two processes",
        MICRO,
        "less",
    ),
    Row(
        "fabric-64mib",
        "fabric",
        "read of 64 MiB, the fabric alone; plain: blocking sockets, both in Rust",
        MILLI,
        "less",
        (Target(0.8, "plain"),),
    ),
    Row(
        "fabric-1kib",
        "fabric",
        "1 KiB asked for and got, the fabric alone; plain: a ping-pong (at most 1.5 times its time)",
        MICRO,
        "less",
        (Target(0.667, "plain"),),
    ),
    Row(
        "dip-whole",
        "curve",
        "bandwidth of a get from another agent over that of the next smaller size, the least from 32 to 256 KiB",
        "x",
        "more",
        (Target(0.8, least=True),),
    ),
    Row(
        "dip-slice",
        "curve",
        "the same for slices of a large array, from 16 to 256 KiB",
        "x",
        "more",
        (Target(0.8, least=True),),
    ),
    Row("million-put", "million", "1,000,000 objects of 64 B in one store: put and published", "1/s", "more"),
    Row("million-get", "million", "all of them leased and compared, by another process", "1/s", "more"),
    Row("million-index", "million", "an object of these in the shared index", "B", "less"),
    Row("million-leases", "million", "in the lease table of a process that has a lease on each", "B", "less"),
    Row("million-agent", "million", "in the agent's own memory", "B", "less"),
    Row("million-back", "million", "of the agent's own memory still taken after their release, each", "B", "less"),
)

GROUPS = tuple(dict.fromkeys(row.group for row in ROWS))
ONCE = ("fabric", "million")
"""Groups whose programs take medians of many rounds, or state a size, by themselves."""
PEERS = ("plain", "ray", "dragon")
_TURNS = {"bridgehead": GROUPS, "ray": ("node", "far"), "dragon": ("node",)}


def takes_part(group: str, system: str) -> bool:
    """Whether a system has a turn at a group. What is plain is measured in Bridgehead's turns, in between."""
    return group in _TURNS.get(system, ())
