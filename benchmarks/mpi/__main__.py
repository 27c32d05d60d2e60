"""The command line: ``python -m mpi --only start,traffic --peers mpich --rounds 3``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from typing import Any

from versus import processes, report, rounds
from versus.__main__ import chosen, machine, parser

from . import programs
from .cluster import missing as no_cluster
from .rows import FAMILIES, GROUPS, PEERS, ROWS, groups, takes_part

CORES = 2
BENCH = rounds.Bench("mpi.child", takes_part)


def main() -> int:
    """Measures, prints and writes the table; the exit code: 1 if a quick run had a failure."""
    asked = parser("mpi", "Measures MPI gangs.", GROUPS, FAMILIES, "the table").parse_args()
    kinds, families = chosen("--only", asked.only, GROUPS), chosen("--peers", asked.peers, FAMILIES)
    left_out = {FAMILIES[family]: why for family in families if (why := programs.missing(family))}
    families = [family for family in families if FAMILIES[family] not in left_out]
    if "slurm" in kinds and (why := "not in the quick form" if asked.quick else no_cluster()):
        left_out["slurm"] = why
        kinds.remove("slurm")
    for name, why in left_out.items():
        print(f"{name}: skipped: {why}; tests/mpi/install brings the MPIs, after `make setup`", file=sys.stderr)
    processes.adopt()
    about: dict[str, Any] = {
        "size": "quick" if asked.quick else "full",
        "rounds": 1 if asked.quick else asked.rounds,
        "cores": processes.pin(CORES),
        "machine": machine(),
        "python": platform.python_version(),
        "mpi": {FAMILIES[family]: programs.versions(family) for family in families},
        "skipped": left_out,
        "load": [round(os.getloadavg()[0], 1)],
    }
    results = _play(groups(kinds, families), about)
    about["load"].append(round(os.getloadavg()[0], 1))
    systems = [report.OURS, *PEERS]
    text = report.to_markdown(results, systems, _words(about, results), not asked.quick, ROWS)
    print(text, end="")
    _write(asked, text, report.to_json(results, systems, about, ROWS))
    return int(asked.quick and bool(results.failures or results.left))


def _play(known: list[str], about: dict[str, Any]) -> rounds.Results:
    results = rounds.Results()
    for group in known:
        count = 1 if group.startswith("slurm") else about["rounds"]  # A cluster takes its own turns.
        rounds.play([group], [report.OURS], count, about["size"], _say, BENCH, results)
    return results


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _write(asked: argparse.Namespace, text: str, document: dict[str, Any]) -> None:
    chosen = [words.replace(",", "-") for words in (asked.only, asked.peers) if words]
    name = "-".join(["mpi", *(["quick"] if asked.quick else []), *chosen])
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / f"{name}.md").write_text(text)
    (asked.out / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


def _words(about: dict[str, Any], results: rounds.Results) -> str:
    versions = "; ".join(f"{name} {found}" for name, found in about["mpi"].items())
    lines = [
        f"{about['rounds']} interleaved rounds ({about['size']}) on cores {about['cores']}; {about['machine']}; "
        f"Python {about['python']}; load average {about['load'][0]} at the beginning, {about['load'][1]} at the end.",
        f"Versions: {', '.join(results.versions.values())}; {versions}.",
    ]
    lines += [f"Skipped: {name}: {why}." for name, why in about["skipped"].items()]
    if about["size"] == "quick":
        lines.append("A quick run: counts and arrays are tiny, so the figures mean nothing and no target is judged.")
    if results.left:
        lines.append(f"Processes that outlived their turn and had to be ended: {results.left}.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
