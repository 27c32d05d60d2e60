"""Laws of targets: what a script and the command line ask of a scheduler together, and what is refused before anything is
handed over. How a scheduler answers is tested on a real one (`tests/slurm`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import bridgehead as bh
import pytest
from bridgehead import _targets

SCRIPT = """
import bridgehead as bh

@bh.task
def one() -> int:
    return 1

p = bh.Pipeline("targets")
p.add(one)
p.submit({on})
"""


def chosen(monkeypatch: pytest.MonkeyPatch, on: bh.Slurm | None, told: object = None) -> object:
    """The target where the script says `on` and the command line says `told`."""
    if told is None:
        monkeypatch.delenv("BRIDGEHEAD_TARGET", raising=False)
    else:
        monkeypatch.setenv("BRIDGEHEAD_TARGET", json.dumps(told))
    return _targets.chosen(on)


def test_the_command_line_overrides_the_script_option_by_option(monkeypatch: pytest.MonkeyPatch) -> None:
    on = bh.Slurm(nodes=3, partition="main", native="--mail-type=END")
    asked = {"nodes": 3, "partition": "main", "native": ["--mail-type=END"]}
    assert chosen(monkeypatch, None) is None
    assert chosen(monkeypatch, on) == {"backend": "slurm", "options": asked}
    told = {"backend": None, "options": {"nodes": 5, "time": "1h"}}
    assert chosen(monkeypatch, on, told) == {"backend": "slurm", "options": {**asked, "nodes": 5, "time": "1h"}}
    assert chosen(monkeypatch, on, {"backend": "local"}) is None
    assert chosen(monkeypatch, None, {"backend": "slurm", "options": {}}) == {"backend": "slurm", "options": {}}


def test_options_without_a_scheduler_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(bh.PlanError, match="nodes.*--on slurm"):
        chosen(monkeypatch, None, {"backend": None, "options": {"nodes": 2}})


def test_an_unknown_option_names_the_valid_ones() -> None:
    with pytest.raises(TypeError, match=r"'nodez'; the options are nodes, cpus"):
        bh.Slurm(nodez=3)  # type: ignore[call-arg]


def test_what_is_no_target_is_refused() -> None:
    pipeline = bh.Pipeline("targets")
    with pytest.raises(bh.PlanError, match="bridgehead.Slurm"):
        pipeline.submit(on="slurm")  # type: ignore[arg-type]
    with pytest.raises(bh.PlanError, match="agents is for this machine"):
        pipeline.submit(on=bh.Slurm(nodes=2), agents=2)


def submit(tmp_path: Path, on: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Submits a script where neither Slurm's commands nor slurmrestd can be found."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(on=on))
    program = Path(sys.prefix, "bin", "bridgehead")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    environment |= {"PATH": "/nowhere", "BRIDGEHEAD_HOME": str(tmp_path / "home")}
    command = [str(program), "submit", *arguments, str(script)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("on", "arguments", "code", "words"),
    [
        ("on=bh.Slurm(nodes=2)", [], 8, "sbatch"),
        ("", ["--on", "slurm"], 8, "sbatch"),
        ("", ["--on", "slurm", "--slurm", "nodez=3"], 2, "nodez"),
        ("", ["--on", "slurm", "--time", "soon"], 2, "time"),
        ("", ["--on", "slurm", "--slurm", "nodes"], 2, "KEY=VALUE"),
        ("", ["--on", "slurm", "--agents", "2"], 2, "--nodes"),
        ("", ["--on", "local", "--nodes", "2"], 2, "--on slurm"),
        ("", ["--nodes", "2"], 1, "--on slurm"),
        ("on=bh.Slurm(rest_url='http://127.0.0.1:9')", [], 8, "127.0.0.1:9"),
    ],
)
def test_what_cannot_be_handed_over_leaves_nothing(
    tmp_path: Path, on: str, arguments: list[str], code: int, words: str
) -> None:
    done = submit(tmp_path, on, *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not list((tmp_path / "home").glob("runs/*"))
