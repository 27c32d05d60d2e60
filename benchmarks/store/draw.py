"""The curve as a picture."""

from __future__ import annotations

import statistics
from pathlib import Path

from versus.rounds import Results

NAMES = {
    "whole": "get of an object from another agent",
    "slice": "slice of a large array from another agent",
    "plain": "blocking socket",
}


def points(results: Results) -> dict[str, dict[int, float]]:
    """Seconds by kind and size: the median of the rounds."""
    found: dict[str, dict[int, float]] = {}
    for key, samples in results.samples.items():
        if key.startswith("curve/"):
            _, kind, size = key.split("/")
            values = [value for value in samples["bridgehead"] if value is not None]
            found.setdefault(kind, {})[int(size)] = statistics.median(values)
    return found


def draw(found: dict[str, dict[int, float]], title: str, path: Path) -> None:
    """Bandwidth by size, both logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    for kind, name in NAMES.items():
        sizes = sorted(found.get(kind, {}))
        if sizes:
            speeds = [size / found[kind][size] / 1e9 for size in sizes]
            axes.loglog(sizes, speeds, "--" if kind == "plain" else "-", marker="o", markersize=4, label=name)
    axes.axvline(64 << 10, color="0.7", linewidth=1, label="64 KiB")
    ticks = [1, 1 << 10, 64 << 10, 1 << 20, 64 << 20, 1 << 30]
    axes.set_xticks(ticks, ["1 B", "1 KiB", "64 KiB", "1 MiB", "64 MiB", "1 GiB"])
    axes.set_xlabel("size")
    axes.set_ylabel("GB/s")
    axes.set_title(title, fontsize=9)
    axes.grid(True, which="major", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def table(found: dict[str, dict[int, float]]) -> str:
    """The points for people: GB/s and what an access takes."""
    lines = ["| bytes | object | slice | blocking socket | object, µs | slice, µs | socket, µs |", "| --- " * 7 + "|"]
    for size in sorted(found.get("plain", {})):
        cells = [found.get(kind, {}).get(size) for kind in NAMES]
        speeds = ["" if cell is None else f"{size / cell / 1e9:.3g}" for cell in cells]
        times = ["" if cell is None else f"{cell * 1e6:,.0f}" for cell in cells]
        lines.append(f"| {size:,} | {' | '.join(speeds)} | {' | '.join(times)} |")
    return "\n".join(lines)
