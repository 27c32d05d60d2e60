"""Laws of the data plane's table: every row is measured by somebody, and the dip is found where there is one."""

from __future__ import annotations

import pytest
from store.rows import GROUPS, ONCE, PEERS, ROWS, takes_part
from versus import report, rounds
from versus.rows import Row, Target

from store import child, draw, ours, plain


def check(points: list[tuple[int, float]], least: float) -> None:
    """The least bandwidth over that of the next smaller size."""
    assert ours.dip(points) == pytest.approx(least)


def test_a_curve_that_rises_has_no_dip() -> None:
    check([(1, 1.0), (4, 2.0), (16, 4.0)], 2.0)
    check([], 1.0)


def test_a_dip_is_the_worst_step_whatever_the_order_of_the_points() -> None:
    check([(16, 4.0), (8, 4.0), (4, 1.0), (32, 8.0)], 0.5)


def test_every_turn_has_its_measure_and_every_measure_its_turn() -> None:
    turns = {(system, group) for system in child.MODULES for group in GROUPS if takes_part(group, system)}
    assert turns == set(child.MEASURES)
    assert set(PEERS) == {"plain", *child.MODULES} - {report.OURS}
    assert set(ONCE) < set(GROUPS)
    assert len({row.key for row in ROWS}) == len(ROWS)
    assert all(target.peer in (None, *PEERS) for row in ROWS for target in row.targets)


def test_a_target_without_a_peer_can_be_a_least_figure() -> None:
    row = Row("dip", "g", "", "x", "more", (Target(0.8, least=True), Target(1.0)))
    results = rounds.Results()
    results.add("dip", report.OURS, 0, 0.9)
    assert [report.verdict(results, row, target) for target in row.targets] == [
        ("at least 0.8 x", True),
        ("at most 1 x", True),
    ]


def test_points_of_the_curve_are_medians_of_the_rounds_that_have_one() -> None:
    results = rounds.Results()
    for round, seconds in enumerate([3.0, 1.0, 2.0]):
        results.add("curve/slice/64", report.OURS, round, seconds)
    results.add("curve/slice/128", report.OURS, 1, 5.0)  # The first round failed.
    results.add("put-64mib", report.OURS, 0, 9.0)
    assert draw.points(results) == {"slice": {64: 2.0, 128: 5.0}}
    assert (
        draw.table({"plain": {64: 64e-9}, "slice": {64: 128e-9}}).splitlines()[-1] == "| 64 |  | 0.5 | 1 |  | 0 | 0 |"
    )


def test_measurements_in_turns_leave_out_the_warm_up() -> None:
    first, second = iter([100.0, 1.0, 2.0, 3.0]), iter([100.0, 4.0, 5.0, 6.0])
    assert plain.in_turns(lambda: next(first), lambda: next(second), 3, warm=1) == (2.0, 5.0)


def test_the_plain_connection_gives_as_many_bytes_as_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(rounds.HERE.parent))
    with plain.Tcp(1 << 20) as tcp:
        for size in (1, 1 << 20, 1000):
            tcp.get(size)
