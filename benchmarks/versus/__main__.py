"""The command line: ``python -m versus --only noop --rounds 5 --peers ray,dask``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from . import processes, report, rounds
from .rows import GROUPS
from .systems import MODULES, WORKERS, is_here

PEERS = [name for name in MODULES if name != report.OURS]
RESULTS = Path(__file__).resolve().parent.parent / "results"


def main() -> int:
    """Measures, prints and writes the table; the exit code: 1 if a quick run had a failure."""
    what = "Measures Bridgehead against its peers."
    asked = parser("versus", what, GROUPS, PEERS, "the table").parse_args()
    groups, peers = chosen("--only", asked.only, GROUPS), chosen("--peers", asked.peers, PEERS)
    missing = [peer for peer in peers if not is_here(peer)]
    systems = [report.OURS, *(peer for peer in peers if peer not in missing)]
    processes.adopt()
    cores = processes.pin(WORKERS)
    size, count = ("quick", 1) if asked.quick else ("full", asked.rounds)
    results = rounds.play(groups, systems, count, size, lambda text: print(text, file=sys.stderr, flush=True))
    about = _about(count, cores, missing, size)
    text = report.to_markdown(results, systems, _words(about, results, peers), not asked.quick)
    print(text, end="")
    name = "versus" + ("-quick" if asked.quick else "") + (f"-{asked.only.replace(',', '-')}" if asked.only else "")
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / f"{name}.md").write_text(text)
    (asked.out / f"{name}.json").write_text(json.dumps(report.to_json(results, systems, about), indent=1) + "\n")
    return int(asked.quick and bool(results.failures or results.left))


def parser(program: str, what: str, groups: Any, peers: Any, out: str) -> argparse.ArgumentParser:
    """What every program of benchmarks takes: some groups and peers, rounds, and where the table goes."""
    made = argparse.ArgumentParser(prog=f"python -m {program}", description=what)
    made.add_argument("--only", default="", metavar="GROUPS", help=f"some of {','.join(groups)}")
    made.add_argument("--peers", default="", help=f"some of {','.join(peers)}; all that are installed if left out")
    made.add_argument("--rounds", type=int, default=5, help="rounds of each group, 5 if left out")
    made.add_argument("--quick", action="store_true", help="one tiny round that only shows that all runs and is right")
    made.add_argument("--out", type=Path, default=RESULTS, help=f"folder for {out}")
    return made


def chosen(option: str, text: str, known: Any) -> list[str]:
    """Names from a list with commas, in the usual order; all of them from an empty one."""
    asked = text.split(",") if text else list(known)
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise SystemExit(f"{option}: unknown {', '.join(unknown)}; known are {', '.join(known)}")
    return [name for name in known if name in asked]


def _about(count: int, cores: list[int], missing: list[str], size: str) -> dict[str, Any]:
    return {
        "size": size,
        "rounds": count,
        "workers": WORKERS,
        "cores": cores,
        "machine": machine(),
        "python": platform.python_version(),
        "skipped": missing,
    }


def machine() -> str:
    """The machine in words."""
    with open("/proc/cpuinfo") as file:
        info = file.read()
    model = next((line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")), "?")
    kind = "virtual machine" if " hypervisor" in info else "machine"
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{kind} with {os.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {platform.release()}"


def _words(about: dict[str, Any], results: rounds.Results, peers: list[str]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    skipped = about["skipped"]
    lines = [
        f"{about['rounds']} interleaved rounds ({about['size']}), {WORKERS} workers on cores {about['cores']}; "
        f"{about['machine']}; Python {about['python']}.",
        f"Versions: {versions}.",
        f"Skipped, since not installed: {len(skipped)} of {len(peers)} peers{': ' if skipped else ''}{', '.join(skipped)}.",
    ]
    if about["size"] == "quick":
        lines.append("A quick run: counts and arrays are tiny, so the figures mean nothing and no target is judged.")
    if results.left:
        lines.append(f"Processes that outlived their system and had to be ended: {results.left}.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
