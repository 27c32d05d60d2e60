"""A table of samples, and ratios of pairs that were measured in turn. Shared by the benchmarks beside virtual clusters."""

from __future__ import annotations

import statistics


class Table:
    """Rows of samples, and lines of words under them."""

    def __init__(self) -> None:
        self.samples: dict[str, list[float]] = {}
        self.lines: list[str] = []

    def add(self, row: str, value: float) -> None:
        self.samples.setdefault(row, []).append(value)

    def ratio(self, what: str, row: str, against: str, target: float | None = None) -> None:
        """The median of so many times what `against` needs, round by round."""
        pairs = zip(self.samples.get(row, []), self.samples.get(against, []), strict=False)
        if ratios := [ours / theirs for ours, theirs in pairs]:
            met = "" if target is None else f" (target: at most {target:g})"
            self.lines.append(f"- {what}: {statistics.median(ratios):.3g} times{met}")

    def text(self) -> str:
        rows = [
            f"| {row} | {statistics.median(s):.4g} | {min(s):.4g} | {max(s):.4g} | {len(s)} |"
            for row, s in self.samples.items()
        ]
        head = ["| what | median | least | most | samples |", "|---|---:|---:|---:|---:|"]
        return "\n".join([*head, *rows, "", *self.lines, ""])
