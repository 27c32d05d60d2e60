"""How the nodes of a run are joined: what the command line asks for is done or refused with the reason, and user code sees nothing of it."""

import os
import pathlib
import subprocess
import sys

import pytest

PIPELINE = """
import bridgehead as bh

@bh.task(cpus=1)
def make(n: int) -> bytes:
    return bytes([n]) * 1_000_000

@bh.task(cpus=1)
def look(*parts: bytes) -> tuple:
    import os
    maps = open("/proc/self/maps").read()
    return sum(part[-1] for part in parts), [k for k in os.environ if k.startswith("UCX")], "libucp" in maps

p = bh.Pipeline("joined")
parts = [p.add(make, n) for n in range(6)]
looks = [p.add(look, *parts) for _ in range(2)]
if __name__ == "__main__":
    run = p.run()
    print(*[run[node].result() for node in looks], sep="\\n")
"""


def run(folder: pathlib.Path, *options: str, ucx: str) -> tuple[int, str, str]:
    """The exit code, what the script said, and the logs of the agents."""
    script = folder / "joined.py"
    script.write_text(PIPELINE)
    home = folder / "home"
    env = os.environ | {"BRIDGEHEAD_HOME": str(home), "BRIDGEHEAD_UCX": ucx}
    program = pathlib.Path(sys.executable).parent / "bridgehead"
    command = [str(program), "run", "--agents", "2", "--cpus", "2", *options, str(script)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    logs = "".join(log.read_text() for log in home.rglob("*.log"))
    return done.returncode, done.stdout + done.stderr, logs


def test_a_fall_back_from_what_is_required_ends_the_run_with_the_reason(tmp_path: pathlib.Path) -> None:
    code, said, _ = run(tmp_path, "--require-transport", "ucx", ucx="/nowhere/libucp.so.0")
    assert code != 0
    assert "UCX is required" in said and "/nowhere/libucp.so.0" in said, said


def test_a_fall_back_from_what_is_asked_for_is_a_warning(tmp_path: pathlib.Path) -> None:
    code, said, logs = run(tmp_path, "--transport", "ucx", ucx="/nowhere/libucp.so.0")
    assert code == 0, said
    assert said.count("(15, [], False)") == 2, said
    assert "joined by tcp, ucx was asked for" in logs and "/nowhere/libucp.so.0" in logs, logs


def test_ucx_joins_agents_and_user_code_sees_nothing_of_it(tmp_path: pathlib.Path) -> None:
    wheel = pathlib.Path(__file__).parents[3] / "target/tmp/ucx-wheel/libucx/lib/libucp.so.0"
    ucx = os.environ.get("BRIDGEHEAD_UCX_WHEEL", str(wheel))
    if not os.path.exists(ucx):
        pytest.skip("no newer UCX: run `cargo test -p bridgehead-ucx`, or name a libucp.so.0 in BRIDGEHEAD_UCX_WHEEL")
    code, said, logs = run(tmp_path, "--require-transport", "ucx", ucx=ucx)
    assert code == 0, said
    assert said.count("(15, [], False)") == 2, said
    assert logs.count("joined by ucx") == 2, logs
