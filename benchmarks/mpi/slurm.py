"""Small gangs inside a job of a virtual Slurm cluster, against steps of srun in a loop inside another one: the group's program, which
`tests/clusters/slurm/with` runs (`python -m mpi.slurm GANGS TURNS`), and the measure that starts it. Its first argument `chain` is
the pipeline that is submitted."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from . import programs
from .gangs import Sample
from .sizes import Sizes

TURNS = 3


def slurm(family: str, sizes: Sizes) -> Iterator[Sample]:
    """A cluster of its own; medians of the turns, by gang."""
    build = programs.CHECKOUT / "target/bench-mpi"  # The cluster's nodes see the checkout.
    build.mkdir(parents=True, exist_ok=True)
    program = programs.build(family, "nothing", build)
    tool = programs.CHECKOUT / "tests/clusters/slurm/with"
    words = [tool, sys.executable, sys.executable, "-m", "mpi.slurm", program, sizes.many, min(TURNS, sizes.starts)]
    done = subprocess.run([*map(str, words)], stdout=subprocess.PIPE, text=True, check=True)
    for peer, seconds in json.loads(done.stdout.splitlines()[-1]).items():
        yield "slurm", peer, seconds * 1e3


def _chain(program: str, count: int) -> None:
    """One gang after another."""
    import bridgehead as bh

    pipeline = bh.Pipeline("chain")
    gang = bh.program(program, ranks=2)
    last = pipeline.add(gang)
    for _ in range(count - 1):
        last = pipeline.add(gang).after(last)
    pipeline.run()


def _measure(program: str, count: int, turns: int) -> dict[str, float]:
    """Seconds of a gang: in a run, from the first that was given out to the end of the last; in a script, around its loop."""
    sys.path.insert(0, str(programs.CHECKOUT / "tests/slurm"))
    from cluster import Cluster  # type: ignore[import-not-found]
    from support import Submitted, User  # type: ignore[import-not-found]

    user = User(Cluster(Path(os.environ["TESTSLURM_STATE"])), "hpcuser")
    user.home.parent.mkdir(exist_ok=True)
    os.chmod(user.home.parent, 0o777)
    found: dict[str, list[float]] = {"bridgehead": [], "srun": []}
    for _ in range(turns):
        notes = user.new_notes()
        on = ("--nodes", 1, "--cpus", 2, "--time", "30m")
        out = user.check("submit", "--on", "slurm", *on, Path(__file__), "chain", program, count)
        run = Submitted(user, out.strip(), notes)
        phase = run.wait_phase("finished", "failed", limit=300)
        if phase != "finished":
            raise RuntimeError(run.told(phase))
        times = [when for when, name, _, _, _ in run.events() if name in ("task-assigned", "task-finished")]
        found["bridgehead"].append((max(times) - min(times)) / 1e9 / count)
        found["srun"].append(_srun(user, notes, program, count))
    return {peer: statistics.median(seconds) for peer, seconds in found.items()}


def _srun(user: object, notes: Path, program: str, count: int) -> float:
    loop = f"for i in $(seq {count}); do srun --mpi=pmi2 -n2 {program} || exit 1; done"
    script = f"set -e; date +%s%N >{notes}/begin; {loop}; date +%s%N >{notes}/end"
    words = ["sbatch", "--wait", "-N1", "-n2", "-c1", "-o", notes / "srun.out", "--wrap", script]
    done = user.run(*words, limit=600)  # type: ignore[attr-defined]
    if done.code != 0:
        raise RuntimeError(f"{done.err}{(notes / 'srun.out').read_text()[-300:]}")
    begin, end = (int((notes / name).read_text()) for name in ("begin", "end"))
    return (end - begin) / 1e9 / count


if __name__ == "__main__":
    if sys.argv[1] == "chain":
        _chain(sys.argv[2], int(sys.argv[3]))
    else:
        print(json.dumps(_measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
