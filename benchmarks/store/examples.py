"""Rows that programs in Rust measure: the fabric, a million objects, UCX. Owns how they are found, called and read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .ours import Sample
from .sizes import MIB, Sizes

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "target/release/examples"
PROGRAMS = {"fabric": "compare", "million": "million"}
"""The program of each group that has one."""
LIMIT = 240
"""Seconds that a program may take."""


class NotBuilt(Exception):
    """The program is not there."""


def is_built(group: str) -> bool:
    """Whether a group needs no program, or has it."""
    return group not in PROGRAMS or (EXAMPLES / PROGRAMS[group]).exists()


def _run(name: str, *arguments: str) -> str:
    program = EXAMPLES / name
    if not program.exists():
        raise NotBuilt(f"{program} is not there: `make bench-store` builds it")
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=LIMIT)
    if done.returncode != 0:
        raise RuntimeError(f"{name} ended with {done.returncode}: {done.stderr[-400:]}")
    return done.stdout


def fabric(sizes: Sizes) -> Iterator[Sample]:
    """The fabric over TCP alone, in one process, against blocking sockets: `transport/tcp/examples/compare.rs`."""
    lines = [line.split() for line in _run(PROGRAMS["fabric"], "mac").splitlines()[1:]]
    found = {name: [float(figure) for figure in figures] for name, *figures in lines}
    for name, system in (("mac", "bridgehead"), ("plain", "plain")):
        speed, _, _, _, answer, _ = found[name]
        yield "fabric-64mib", system, 64 * MIB / (speed * 1e9) * 1e3
        yield "fabric-1kib", system, answer


def million(sizes: Sizes) -> Iterator[Sample]:
    """A store full of small objects: `store/node/examples/million.rs`."""
    figures = json.loads(_run(PROGRAMS["million"], str(sizes.objects)))
    for key in ("put", "get", "index", "leases", "agent", "back"):
        yield f"million-{key}", "bridgehead", float(figures[key])


def _releases() -> list[tuple[str, Path, Path]]:
    """Each UCX with its `ucx_perftest`: the system's, and those that `cargo test -p bridgehead-ucx` fetched."""
    found = []
    program = shutil.which("ucx_perftest")
    if program:
        for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"):
            if Path(folder, "libucp.so.0").exists():
                found.append(("the system's", Path(folder, "libucp.so.0"), Path(program)))
                break
    kept = ROOT / "target/tmp"
    for name in ("ucx-debian", "ucx-wheel"):
        libraries = sorted(kept.glob(f"{name}/**/libucp.so.0"))
        programs = sorted(kept.glob(f"{name}/**/ucx_perftest"))
        if libraries and programs:
            programs[0].chmod(0o755)  # Python's zipfile unpacks a wheel without it.
            found.append((name, libraries[0], programs[0]))
    return found


def ucx() -> str:
    """The table of `transport/ucx/examples/perftest.rs` for each UCX that has its `ucx_perftest`, or why there is none."""
    releases = _releases()
    if not releases:
        return "UCX: not measured, since no `ucx_perftest` is here (`cargo test -p bridgehead-ucx` fetches one)."
    parts = []
    for name, library, program in releases:
        try:
            text = _run("perftest", str(library), str(program))
        except (NotBuilt, RuntimeError, subprocess.TimeoutExpired) as error:
            parts.append(f"UCX, {name}: not measured: {error}")
            continue
        ratios = [float(match) for match in re.findall(r"([\d.]+)\s*$", text, re.MULTILINE)]
        least = f"; the least ratio is {min(ratios):.2f} (target: at least 0.9)" if ratios else ""
        parts.append(f"UCX, {name}, against its own `ucx_perftest`{least}:\n\n```\n{text.rstrip()}\n```")
    return "\n\n".join(parts)
