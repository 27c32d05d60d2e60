"""Laws of the table of MPI gangs: every group has its measure, every row an MPI, and what is asked for is what is measured."""

from __future__ import annotations

import pytest
from mpi import child, programs, rows


def test_every_group_has_its_measure_and_every_measure_its_rows() -> None:
    assert set(child.measures()) == set(rows.GROUPS) == {row.group.split("-")[0] for row in rows.ROWS}
    assert len({row.key for row in rows.ROWS}) == len(rows.ROWS)
    assert all(target.peer in rows.PEERS for row in rows.ROWS for target in row.targets)


@pytest.mark.parametrize("family", rows.FAMILIES)
def test_only_what_is_asked_for_is_measured_with_the_mpis_that_are_here(family: str) -> None:
    assert rows.groups(["start", "steps"], [family]) == [f"start-{family}", f"steps-{family}"]
    assert rows.groups(list(rows.GROUPS), []) == []


def test_a_machine_without_an_mpi_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert programs.missing("mpich") == "there is no mpicc.mpich"
