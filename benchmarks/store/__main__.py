"""The command line: ``python -m store --only far,curve --rounds 5 --peers ray``."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
from typing import Any

from versus import processes, report, rounds
from versus.__main__ import chosen, machine, parser

from . import draw, examples
from .child import MODULES
from .rows import GROUPS, ONCE, PEERS, ROWS, takes_part

CORES = 2
BENCH = rounds.Bench("store.child", takes_part)


def main() -> int:
    """Measures, prints and writes the table and the curve; the exit code: 1 if a quick run had a failure."""
    what, all_groups = "Measures the store and its transport.", (*GROUPS, "ucx")
    asked = parser("store", what, all_groups, PEERS, "the table and the curve").parse_args()
    groups = chosen("--only", asked.only, all_groups)
    peers = chosen("--peers", asked.peers, PEERS)
    missing = [peer for peer in peers if peer in MODULES and importlib.util.find_spec(MODULES[peer]) is None]
    systems = [report.OURS, *(peer for peer in peers if peer not in missing)]
    processes.adopt()
    about: dict[str, Any] = {
        "size": "quick" if asked.quick else "full",
        "rounds": 1 if asked.quick else asked.rounds,
        "cores": processes.pin(CORES),
        "machine": machine(),
        "python": platform.python_version(),
        "skipped": missing,
        "load": [round(os.getloadavg()[0], 1)],
    }
    results = _play([group for group in groups if group != "ucx"], systems, about)
    notes = [examples.ucx()] if "ucx" in groups and not asked.quick else []
    about["load"].append(round(os.getloadavg()[0], 1))
    found = draw.points(results)
    if found:
        notes.append(f"The curve, medians of the rounds:\n\n{draw.table(found)}")
    text = report.to_markdown(results, systems, _words(about, results), not asked.quick, ROWS)
    text += "".join(f"\n{note}\n" for note in notes)
    print(text, end="")
    _write(asked, text, report.to_json(results, systems, about, ROWS) | {"curve": found}, found)
    return int(asked.quick and bool(results.failures or results.left))


def _play(groups: list[str], systems: list[str], about: dict[str, Any]) -> rounds.Results:
    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    results = rounds.Results()
    for group in groups:
        if about["size"] == "quick" and not examples.is_built(group):
            say(f"{group}: skipped, since its program is not built: `make bench-store` does it")
            continue
        count = 1 if group in ONCE else about["rounds"]
        rounds.play([group], systems, count, about["size"], say, BENCH, results)
    return results


def _write(asked: argparse.Namespace, text: str, document: dict[str, Any], found: dict[str, dict[int, float]]) -> None:
    name = "store" + ("-quick" if asked.quick else "") + (f"-{asked.only.replace(',', '-')}" if asked.only else "")
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / f"{name}.md").write_text(text)
    (asked.out / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    if found and importlib.util.find_spec("matplotlib") is not None:
        title = (
            f"{document['machine']}; load average {' to '.join(map(str, document['load']))}; two agents over loopback"
        )
        draw.draw(found, title, asked.out / f"{name}-curve.png")


def _words(about: dict[str, Any], results: rounds.Results) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    lines = [
        f"{about['rounds']} interleaved rounds ({about['size']}) on cores {about['cores']}; {about['machine']}; "
        f"Python {about['python']}; load average {about['load'][0]} at the beginning, {about['load'][1]} at the end.",
        f"Versions: {versions}.",
    ]
    if about["skipped"]:
        lines.append(f"Skipped, since not installed: {', '.join(about['skipped'])}.")
    if about["size"] == "quick":
        lines.append("A quick run: counts and arrays are tiny, so the figures mean nothing and no target is judged.")
    if results.left:
        lines.append(f"Processes that outlived their system and had to be ended: {results.left}.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
