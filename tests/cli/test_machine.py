"""Laws of `doctor` and `completions`, of wrong usage, and of a home that cannot be used."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from cli_support import BINARY, Cli

SHELLS = {"bash": ["bash", "-n"], "zsh": ["zsh", "-n"], "fish": ["fish", "--no-execute"]}


def test_doctor_tells_what_is_there_and_what_each_lack_costs(cli: Cli) -> None:
    facts = cli.json("doctor")
    usable = len(os.sched_getaffinity(0))
    text = cli.check("doctor", out=f"{usable} usable here")
    assert facts["topology"]["numa"] and facts["topology"]["memory"]["total"] > 0
    for lack in facts["lacks"]:
        assert lack["cost"] and f"note: {lack['lack']}: {lack['cost']}\n" in text
    hardware = ("processors", "numa", "memory", "huge pages", "shared memory", "locked memory", "gpu")
    for word in (*hardware, "transports", "ucx", "slurm"):
        assert f"\n{word}" in text


def test_doctor_finds_what_schedulers_and_ucx_leave(cli: Cli, tmp_path: Path) -> None:
    for name in ("sbatch", "kubectl", "libucp.so.0", "kubeconfig"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    env = {
        **cli.env,
        "PATH": str(tmp_path),
        "LD_LIBRARY_PATH": str(tmp_path),
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
    }
    text = cli.check("doctor", env=env)
    for name in ("sbatch", "libucp.so.0", "kubeconfig"):
        assert str(tmp_path / name) in text
    assert "no scheduler" not in text and "no UCX" not in text and "no python3" in text


BY_HAND = Path(__file__).parents[2] / "store/topology/tests/machines/by-hand.xml"


def test_doctor_shows_the_machine_of_a_file(cli: Cli) -> None:
    text = cli.check("doctor", "--topology", str(BY_HAND))
    for row in (
        "processors      16 threads, 8 cores, 2 packages; 14 usable here (0-6,8-14); Made Up 9000",
        "numa            node 1: processors 2-3,10-11, 16 GiB, distances 12 10 32 28",
        "numa            node 3: processors 6-7,14-15, 32 GiB, distances 32 28 12 10, not for this process",
        "gpu             nvidia 3: Made Up H1 at 0000:52:00.0, NUMA node 1",
        "network         net1, NUMA node 3",
        "network         mlx5_0 port 1 InfiniBand, active, NUMA node 1",
        "gpu links       NVLinkBandwidth of nvidia 3: 0 0 100000 1000000",
    ):
        assert f"{row}\n" in text
    facts = cli.json("doctor", "--topology", str(BY_HAND))
    topology = facts["topology"]
    assert facts["file"] == str(BY_HAND)
    assert [(gpu["index"], gpu["numa_node"]) for gpu in topology["gpus"]] == [(0, 2), (1, 3), (2, 0), (3, 1)]
    assert [node["distances"][0] for node in topology["numa"]] == [10, 12, 32, 32]


def test_doctor_says_why_a_file_is_no_machine(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "machine.xml"
    cli.check("doctor", "--topology", str(path), code=3, err=str(path))
    path.write_bytes(b"\xff")
    cli.check("doctor", "--topology", str(path), code=6, err="UTF-8")
    path.write_text('<topology version="3.0"/>')
    cli.check("doctor", "--topology", str(path), code=6, err=f"{path}: line 1: it is of format")
    cli.check("doctor", "--topology", str(tmp_path), code=5, err=str(tmp_path))
    assert cli.run("doctor", "--topology", str(path), "--transport").returncode == 2


def test_doctor_follows_no_file_in_the_environment(cli: Cli) -> None:
    text = cli.check("doctor", env={**cli.env, "HWLOC_XMLFILE": str(BY_HAND)})
    assert f"`doctor --topology {BY_HAND}`" in text and "Made Up" not in text


@pytest.mark.parametrize("shell", SHELLS)
def test_a_completion_script_is_one(cli: Cli, shell: str, tmp_path: Path) -> None:
    script = cli.check("completions", shell, out="resume")
    assert "reaper" not in script
    if shutil.which(shell) is None:
        print(f"not checked further: {shell} is not here")
        return
    path = tmp_path / "script"
    path.write_text(script)
    subprocess.run([*SHELLS[shell], path], check=True, timeout=60)


def test_bash_completes_a_command_and_its_options(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text(cli.check("completions", "bash"))

    def complete(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        code = f"source {path}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}\n"
        code += f"_bridgehead bridgehead '{words[-1]}' '{words[-2]}'; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.split()

    assert complete("bridgehead", "stat") == ["status"]
    assert complete("bridgehead", "logs", "--fol") == ["--follow"]


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not here")
def test_fish_completes_a_command_and_its_options(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text(cli.check("completions", "fish"))

    def complete(line: str) -> list[str]:
        code = f"source {path}; complete -C '{line}'"
        env = {**cli.env, "HOME": str(tmp_path)}
        done = subprocess.run(["fish", "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True)
        return [found.split("\t")[0] for found in done.stdout.splitlines()]

    assert complete("bridgehead stat") == ["status"]
    assert complete("bridgehead logs --fol") == ["--follow"]
    assert "reaper" not in complete("bridgehead ")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not here")
def test_zsh_takes_the_completion_for_the_command(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "_bridgehead").write_text(cli.check("completions", "zsh"))
    code = f"fpath=({tmp_path} $fpath); autoload -U compinit; compinit -u -d {tmp_path}/dump; print $_comps[bridgehead]"
    done = subprocess.run(["zsh", "-f", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "_bridgehead\n"


def test_wrong_usage_has_its_code(cli: Cli) -> None:
    for words in (["nonsense"], ["status"], ["run", "--agents", "0", "x.py"], ["ps", "--nonsense"]):
        done = cli.run(*words)
        assert done.returncode == 2 and "--help" in done.stderr


def test_help_names_every_command(cli: Cli) -> None:
    text = cli.check("--help")
    for command in [
        "run",
        "plan",
        "submit",
        "ps",
        "status",
        "watch",
        "logs",
        "why",
        "cancel",
        "resume",
        "results",
        "doctor",
        "gc",
        "completions",
    ]:
        assert f"\n  {command} " in text
    assert "reaper" not in text


def test_a_home_that_is_no_folder_is_an_error(cli: Cli, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("")
    env = {**cli.env, "BRIDGEHEAD_HOME": str(home)}
    for words in (["ps"], ["status", "x"], ["gc"]):
        cli.check(*words, env=env, code=5, err=str(home))
    done = cli.run("run", cli.script, "quick", env=env)
    assert done.returncode == 1 and f"{home}" in done.stderr and "set BRIDGEHEAD_HOME" in done.stderr


def test_a_home_without_permission_is_an_error(cli: Cli) -> None:
    """As another user where this one may do everything."""
    nobody = 65534
    with tempfile.TemporaryDirectory(prefix="bh-") as place:
        os.chmod(place, 0o755)
        home, program = Path(place, "home"), Path(place, "bridgehead")
        (home / "runs").mkdir(parents=True)
        shutil.copy(BINARY, program)
        (home / "runs").chmod(0o700 if os.geteuid() == 0 else 0)
        options = {"user": nobody} if os.geteuid() == 0 else {}
        env = {**cli.env, "BRIDGEHEAD_HOME": str(home), "XDG_RUNTIME_DIR": place}
        for words in (["ps"], ["logs", "x"], ["gc"]):
            done = subprocess.run(
                [program, *words], env=env, capture_output=True, text=True, timeout=60, cwd="/", **options
            )
            assert done.returncode == 5, done
            assert "Permission denied" in done.stderr and str(home / "runs") in done.stderr
        (home / "runs").chmod(0o700)
