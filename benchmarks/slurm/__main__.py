"""Bridgehead on a Slurm cluster against plain Slurm and HyperQueue, on the same nodes in one run: `make bench-slurm`.

Owns the rows and the table. The cluster is `tests/clusters/slurm`, the user on its login node is that of `tests/slurm`. All
figures are of virtual nodes that share the cores of one machine: only ratios of the same run mean anything."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parents[1] / "tests"
sys.path[:0] = [str(TESTS / "slurm"), str(TESTS / "clusters"), str(HERE.parent)]

from cluster import Cluster  # noqa: E402
from handed import wait_until  # noqa: E402
from pairs import Table  # noqa: E402
from support import Submitted, User  # noqa: E402

PIPELINES = HERE / "pipelines.py"
SUBMISSION = HERE.parents[1] / "target/release/examples/submission"
OURS, BARE = "submission by REST, Bridgehead, ms", "submission by REST, a bare POST, ms"
REST = ["--slurm-door", "rest", "--rest-url", "http://ctl:6820"]


def submitted(user: User, kind: str, *arguments: object, on: list[object]) -> Submitted:
    notes = user.new_notes()
    out = user.check("submit", "--on", "slurm", *on, PIPELINES, kind, notes, *arguments)
    return Submitted(user, out.strip(), notes)


def submission(table: Table, user: User, rounds: int) -> None:
    """A submission by REST of the same held job by the backend and by a bare POST, in one process; and the whole command, which
    starts Python twice over, writes the run folder and asks what the cluster has."""
    folder = user.new_notes()
    words = [SUBMISSION, "http://ctl:6820", user.token, user.name, folder, 20 * rounds]
    seconds = json.loads(expect(user, *words))
    for ours, bare in zip(seconds["ours"], seconds["bare"], strict=True):
        table.add(OURS, 1e3 * ours)
        table.add(BARE, 1e3 * bare)
    way = [*REST, "--token-file", user.token, "--nodes", 1, "--cpus", 1, "--time", "10m", "--sbatch=--hold"]
    words = ["submit", "--on", "slurm", *way, PIPELINES, "stamp", folder]
    for _ in range(rounds):
        began = time.monotonic()
        user.check(*words)
        table.add("bridgehead submit, the whole command, ms", 1e3 * (time.monotonic() - began))
    user.run("scancel", "-u", user.name)


def expect(user: User, *words: object, limit: float = 600) -> str:
    """A command that succeeds."""
    done = user.run(*words, limit=limit)
    assert done.code == 0, (words, done)
    return done.out


def first_task(table: Table, user: User, rounds: int) -> None:
    """From the batch script's first line to the first task's, and to the first line of a bare `srun` on the same nodes."""
    for _ in range(rounds):
        mark = user.new_notes()
        setup = f'setup=["date +%s%N > {mark}/start"]'
        run = submitted(user, "stamp", on=["--nodes", 3, "--cpus", 1, "--time", "10m", "--slurm", setup])
        run.wait_phase("finished")
        started, task = (int(path.read_text()) for path in (mark / "start", run.notes / "first-task"))
        table.add("job start to first task, 3 nodes, ms", (task - started) / 1e6)
        script = f"date +%s%N >{mark}/bare; srun -N3 -n3 sh -c 'date +%s%N >{mark}/bare.$SLURM_PROCID'"
        words = ["sbatch", "--wait", "-N3", "-n3", "-c1", "-o", "/dev/null", "--wrap", script]
        expect(user, *words)
        firsts = [int((mark / f"bare.{n}").read_text()) for n in range(3)]
        table.add(
            "job start to first line of srun, 3 nodes, ms", (min(firsts) - int((mark / "bare").read_text())) / 1e6
        )


def seconds_of(run: Submitted) -> float:
    """From the first task that was given out to the end of the last, by the journal."""
    run.wait_phase("finished", limit=900)
    times = [when for when, name, _, _, _ in run.events() if name in ("task-assigned", "task-finished")]
    return (max(times) - min(times)) / 1e9


def sweep(table: Table, user: User, number: int) -> None:
    """A sweep over three nodes as functions and as programs, and as an array of plain Slurm; from the submission to the end."""
    three = ["--nodes", 3, "--cpus", 2, "--time", "30m"]
    for kind in ("functions", "programs"):
        began = time.monotonic()
        run = submitted(user, kind, number, on=three)
        inside = seconds_of(run)
        table.add(f"{number} members, Bridgehead {kind}, 3 nodes, s", time.monotonic() - began)
        table.add(f"{kind} inside the job, 3 nodes, 1/s", number / inside)
    began = time.monotonic()
    job = expect(user, "sbatch", "--parsable", f"--array=0-{number - 1}", "-n1", "-o", "/dev/null", "--wrap", "true")
    wait_until(lambda: not user.cluster.slurm("squeue", "-h", "-j", job.strip()), "the array ends", 1800, every=0.2)
    table.add(f"{number} members, array of plain Slurm, 4 nodes, s", time.monotonic() - began)


def hyperqueue(table: Table, user: User, number: int, python: str) -> None:
    """The same programs on one node with two cores, without the job's start."""
    on = ["--nodes", 1, "--cpus", 2, "--time", "30m"]
    table.add(f"{number} programs, Bridgehead, 1 node, s", seconds_of(submitted(user, "programs", number, on=on)))
    words = ["srun", "-N1", "-n1", "-c2", python, HERE / "hyperqueue_here.py", number, 2]
    table.add(f"{number} programs, HyperQueue, 1 node, s", float(expect(user, *words, limit=1800).split()[-1]))


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks/slurm", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the rows that take milliseconds")
    parser.add_argument("--members", type=int, default=10_000, help="members of the sweep")
    parser.add_argument("--hyperqueue", default="", metavar="PYTHON", help="an interpreter that has HyperQueue")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results/slurm.md", help="where the table goes")
    asked = parser.parse_args()
    user = User(Cluster(Path(os.environ["TESTSLURM_STATE"])), "hpcuser")
    user.home.parent.mkdir(exist_ok=True)
    os.chmod(user.home.parent, 0o777)
    table = Table()
    submission(table, user, asked.rounds)
    first_task(table, user, asked.rounds)
    sweep(table, user, asked.members)
    has = (
        asked.hyperqueue and subprocess.run([asked.hyperqueue, "-c", "import hyperqueue"], check=False).returncode == 0
    )
    if has:
        hyperqueue(table, user, asked.members, asked.hyperqueue)
    else:
        table.lines.append("- HyperQueue was not measured: it is not installed (pip install hyperqueue)")
    table.ratio("a submission against a bare POST", OURS, BARE, 1.2)
    n = asked.members
    table.ratio(
        "job start to first task against a bare srun",
        "job start to first task, 3 nodes, ms",
        "job start to first line of srun, 3 nodes, ms",
    )
    for kind in ("functions", "programs"):
        table.ratio(
            f"a sweep of {kind} against an array of plain Slurm",
            f"{n} members, Bridgehead {kind}, 3 nodes, s",
            f"{n} members, array of plain Slurm, 4 nodes, s",
        )
    table.ratio(
        "programs against HyperQueue, one node",
        f"{n} programs, Bridgehead, 1 node, s",
        f"{n} programs, HyperQueue, 1 node, s",
    )
    print(table.text(), end="")
    asked.out.write_text(table.text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
