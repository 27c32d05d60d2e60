"""Laws of the table: ratios are of the same round and say how many times better, targets are met by their medians."""

from __future__ import annotations

import pytest
from versus import measures, report, rounds
from versus.rows import GROUPS, ROWS, Row, Target

RATE = Row("rate", "g", "a rate", "1/s", "more", (Target(3, "pool"), Target(90)))
TIME = Row("time", "g", "a time", "s", "less", (Target(2, "pool"), Target(1.5)))


def results_of(row: Row, ours: list[float | None], theirs: list[float | None]) -> rounds.Results:
    results = rounds.Results()
    for system, samples in ((report.OURS, ours), ("pool", theirs)):
        for round, value in enumerate(samples):
            if value is not None:
                results.add(row.against or row.key if system == "pool" else row.key, system, round, value)
    return results


def check(row: Row, ours: list[float | None], theirs: list[float | None], ratios: list[float]) -> None:
    """The ratios of a row are those of the rounds that both systems have."""
    assert report.ratio(results_of(row, ours, theirs), row, "pool") == report.Spread.of(ratios)


def test_a_ratio_says_how_many_times_better() -> None:
    check(RATE, [30, 40, 60], [10, 10, 10], [3, 4, 6])
    check(TIME, [1, 2, 4], [8, 8, 8], [8, 4, 2])


def test_only_rounds_that_both_have_give_ratios() -> None:
    check(RATE, [30, None, 60, 80], [10, 10, None, 20], [3, 4])
    check(RATE, [30], [], [])
    check(RATE, [], [10], [])


def test_a_row_can_stand_against_another_one() -> None:
    row = Row("graph", "g", "", "1/s", "more", against="rate")
    check(row, [30], [10], [3])


@pytest.mark.parametrize(
    ("row", "ours", "met"),
    [(RATE, [20, 30, 90], [True, True]), (RATE, [20, 29, 100], [False, True]), (TIME, [1, 2, 5], [True, False])],
)
def test_the_median_meets_a_target(row: Row, ours: list[float | None], met: list[bool]) -> None:
    results = results_of(row, ours, [10, 10, 10])
    assert [report.verdict(results, row, target)[1] for target in row.targets] == met


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert [report.verdict(rounds.Results(), RATE, target)[1] for target in RATE.targets] == [None, None]


def test_failures_that_are_alike_are_one_line() -> None:
    failures = [rounds.Failure("store", "ray", round, "full") for round in range(3)]
    assert report.failures_text(failures) == "- failed: store on ray, round 1, 2, 3: full"


def test_every_group_has_its_measure_and_every_row_its_own_key() -> None:
    assert set(GROUPS) == {*measures.MEASURES, "start"}
    assert len({row.key for row in ROWS}) == len(ROWS)
