"""From samples to the table: medians, ratios of rounds, targets. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .rounds import Failure, Results
from .rows import ROWS, Row, Target

OURS = "bridgehead"
Rows = Sequence[Row]


@dataclass(frozen=True)
class Spread:
    """A median with the least and the most of its samples."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, samples: list[float]) -> Spread | None:
        """The spread of some samples, `None` of none."""
        return cls(statistics.median(samples), min(samples), max(samples)) if samples else None

    def text(self) -> str:
        """``median (least-most)``."""
        return f"{_short(self.median)} ({_short(self.least)}-{_short(self.most)})"


def _short(value: float) -> str:
    """A figure with three digits that matter."""
    return (
        f"{value:,.0f}"
        if value >= 100
        else f"{value:.1f}"
        if value >= 10
        else f"{value:.2g}"
        if value < 1
        else f"{value:.2f}"
    )


def _samples(results: Results, row: str, system: str) -> list[float | None]:
    return results.samples.get(row, {}).get(system, [])


def figures(results: Results, row: Row, system: str) -> Spread | None:
    """What a system reached in a row."""
    return Spread.of([value for value in _samples(results, row.key, system) if value is not None])


def ratio(results: Results, row: Row, peer: str) -> Spread | None:
    """So many times better than `peer`: ratios of the same round, so that what slows a round slows both."""
    pairs = zip(_samples(results, row.key, OURS), _samples(results, row.against or row.key, peer), strict=False)
    both = [(ours, theirs) for ours, theirs in pairs if ours and theirs]
    return Spread.of([ours / theirs if row.better == "more" else theirs / ours for ours, theirs in both])


def verdict(results: Results, row: Row, target: Target) -> tuple[str, bool | None]:
    """A target in words, and whether it was met; `None` where nothing was measured."""
    if target.peer is None:
        reached = figures(results, row, OURS)
        words = f"at {'least' if target.least else 'most'} {target.bound:g} {row.unit}"
        if reached is None:
            return words, None
        return words, reached.median >= target.bound if target.least else reached.median <= target.bound
    against = ratio(results, row, target.peer)
    return f"{target.bound:g} x {target.peer}", None if against is None else against.median >= target.bound


def _verdicts(results: Results, row: Row, judged: bool) -> str:
    if not judged:
        return "; ".join(verdict(results, row, target)[0] for target in row.targets)
    words = {True: "met", False: "**missed**", None: "not measured"}
    found = (verdict(results, row, target) for target in row.targets)
    return "; ".join(f"{text}: {words[met]}" for text, met in found)


def _measured(results: Results, rows: Rows) -> list[Row]:
    groups = {failure.group for failure in results.failures}
    return [row for row in rows if row.key in results.samples or row.group in groups]


def _table(head: list[str], lines: list[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def ratios_table(results: Results, peers: list[str], judged: bool, rows: Rows = ROWS) -> str:
    """The table of ratios: a line a row, a column a peer; says what was met only if it is to be `judged`."""
    lines = []
    for row in _measured(results, rows):
        ours = figures(results, row, OURS)
        cells = [ratio(results, row, peer) for peer in peers]
        texts = ["" if cell is None else cell.text() for cell in cells]
        lines.append(
            [
                row.title,
                f"{_short(ours.median)} {row.unit}" if ours else "failed",
                *texts,
                _verdicts(results, row, judged),
            ]
        )
    return _table(["so many times better than", "Bridgehead", *peers, "target"], lines)


def figures_table(results: Results, systems: list[str], rows: Rows = ROWS) -> str:
    """The figures that the ratios come from."""
    lines = []
    for row in _measured(results, rows):
        cells = [figures(results, row, system) for system in systems]
        lines.append([f"{row.title}, {row.unit}", *("" if cell is None else cell.text() for cell in cells)])
    return _table(["median (least-most)", *systems], lines)


def failures_text(failures: list[Failure]) -> str:
    """Failed turns, one line for all rounds that failed alike."""
    rounds: dict[tuple[str, str, str], list[int]] = {}
    for failure in failures:
        message = " ".join(failure.message.split())
        rounds.setdefault((failure.group, failure.system, message), []).append(failure.round + 1)
    lines = [
        f"- failed: {group} on {system}, round {', '.join(map(str, found))}: {message}"
        for (group, system, message), found in rounds.items()
    ]
    return "\n".join(lines)


def to_json(results: Results, systems: list[str], about: dict[str, Any], chosen: Rows = ROWS) -> dict[str, Any]:
    """Everything, for programs."""
    rows = {
        row.key: {
            "title": row.title,
            "unit": row.unit,
            "better": row.better,
            "samples": results.samples.get(row.key, {}),
            "ratios": {
                peer: vars(found)
                for peer in systems
                if peer != OURS and (found := ratio(results, row, peer)) is not None
            },
            "targets": [
                dict(zip(("target", "met"), verdict(results, row, target), strict=True)) for target in row.targets
            ],
        }
        for row in _measured(results, chosen)
    }
    failures = [vars(failure) for failure in results.failures]
    return {**about, "versions": results.versions, "rows": rows, "failures": failures, "left_processes": results.left}


def to_markdown(results: Results, systems: list[str], about: str, judged: bool, rows: Rows = ROWS) -> str:
    """Everything, for people."""
    peers = [system for system in systems if system != OURS]
    parts = [
        about,
        ratios_table(results, peers, judged, rows),
        figures_table(results, systems, rows),
        failures_text(results.failures),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"
