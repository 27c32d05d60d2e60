"""Laws of programs that take part in their run: what they put is there for everybody, what others put is there for them, and
they leave nothing behind however they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import bridgehead as bh
import numpy as np
import pytest

LIMIT = 60.0
"""Seconds within which what is waited for must come."""

SOLVER = """
import sys
import numpy as np
import bridgehead as bh
with bh.store().stream(sys.argv[1], keep=2, block=True) as stream:
    for step in range(1, int(sys.argv[2]) + 1):
        stream.put(np.full(int(sys.argv[3]), float(step)))
print(bh.store().get(sys.argv[1] + ".answer", timeout=60))
"""


@pytest.fixture
def script(tmp_path: Path) -> Any:
    """Writes a script: the command that runs it as a program."""

    def write(text: str) -> str:
        path = tmp_path / "script.py"
        path.write_text(text)
        return f"{sys.executable} {path}"

    return write


def follow(name: str) -> list[tuple[int, float, int]]:
    found = [(step, float(a.sum()), a.size) for step, a in bh.store().watch(name, timeout=LIMIT)]
    bh.store().put(f"{name}.answer", len(found))
    return found


def wait_for(name: str) -> None:
    bh.store().wait(name, timeout=LIMIT)


@pytest.mark.parametrize("agents", [1, 2])
@pytest.mark.parametrize("size", [10, 100_000])
def test_a_program_streams_to_a_task_and_gets_its_answer(script: Any, agents: int, size: int) -> None:
    p = bh.Pipeline("coupled")
    solver = p.add(bh.program(f"{script(SOLVER)} field 6 {size}"))
    found = p.add(bh.task(follow), "field")
    with p.run(agents=agents, cpus=2) as run:
        assert run[found].result(LIMIT) == [(step, step * float(size), size) for step in range(1, 7)]
        assert run[solver].result(LIMIT).stdout == "6\n"


def test_a_driver_and_a_program_share_the_names(script: Any) -> None:
    code = "import bridgehead as bh\nprint(bh.store().get('x', timeout=60).sum(), bh.store().get('y'))\n"
    p = bh.Pipeline("p")
    shown = p.add(bh.program(script(code)))
    with p.run(cpus=1, wait=False) as run:
        bh.store(run).put("y", {"any": ["value"]})
        bh.store(run).put("x", np.ones(50_000))
        assert run[shown].result(LIMIT).stdout == "50000.0 {'any': ['value']}\n"


def test_a_forked_child_of_a_program_comes_in_by_itself(script: Any) -> None:
    code = (
        "import os, bridgehead as bh\nstore = bh.store()\nstore.put('parent', os.getpid())\npid = os.fork()\n"
        "if pid == 0:\n    bh.store().put('child', os.getpid())\n    os._exit(0)\n"
        "os.waitpid(pid, 0)\nprint(bh.store().get('child') == pid, store.get('parent') == os.getpid())\n"
    )
    p = bh.Pipeline("p")
    shown = p.add(bh.program(script(code)))
    with p.run(cpus=1, wait=False) as run:
        assert run[shown].result(LIMIT).stdout == "True True\n"


def test_a_program_that_is_killed_while_it_holds_and_waits_leaves_room_and_breaks_its_stream(script: Any) -> None:
    code = (
        "import os, bridgehead as bh, numpy as np\nstore = bh.store()\nstream = store.stream('s')\nstream.put(np.ones(10))\n"
        "held = [store.get('big', timeout=60)]\nstore.put('pid', os.getpid())\nstore.wait('never')\n"
    )
    p = bh.Pipeline("p")
    victim, _ = p.add(bh.program(script(code))), p.add(bh.task(wait_for), "over")
    with p.run(cpus=2, store="64MiB", wait=False) as run:
        store = bh.store(run)
        store.put("big", np.ones(4_000_000))
        pid = store.get("pid", timeout=LIMIT)
        store.delete("big")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(bh.TaskError):
            run[victim].result(LIMIT)
        with pytest.raises(bh.StreamBroken):
            store.wait("s", 2, timeout=LIMIT)
        for _ in range(4):  # Each needs the room that the dead program held.
            store.put("again", np.ones(4_000_000))
            store.delete("again")
        store.put("over", True)


def test_outside_of_a_run_the_variables_are_checked(script: Any, tmp_path: Path) -> None:
    command = script(
        "import bridgehead as bh\ntry:\n    bh.store()\nexcept Exception as e:\n    print(type(e).__name__, e)\n"
    )
    variables = {key: value for key, value in os.environ.items() if not key.startswith("BRIDGEHEAD_")}

    def said(**more: str) -> str:
        done = subprocess.run(
            command.split(), env={**variables, **more}, capture_output=True, text=True, timeout=LIMIT, check=False
        )
        assert done.stderr == ""
        return done.stdout

    nobody = str(tmp_path / "nobody.sock")
    assert said().startswith("RuntimeError no run is open here")
    assert said(BRIDGEHEAD_SOCKET=nobody).startswith("RuntimeError BRIDGEHEAD_TASK is not set")
    assert "no number" in said(BRIDGEHEAD_SOCKET=nobody, BRIDGEHEAD_TASK="x", BRIDGEHEAD_ATTEMPT="1")
    assert said(BRIDGEHEAD_SOCKET=nobody, BRIDGEHEAD_TASK="1", BRIDGEHEAD_ATTEMPT="1").startswith("ConnectionError")


def test_the_threads_of_a_program_may_all_ask(script: Any) -> None:
    code = (
        "import threading, bridgehead as bh, numpy as np\nstore = bh.store()\n"
        "def work(n):\n    for i in range(20):\n        store.put(f'{n}', np.full(5000, i))\n"
        "        assert store.get(f'{n}')[0] == i\n"
        "threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]\n"
        "[t.start() for t in threads]\n[t.join() for t in threads]\nprint(sorted(store), store.versions('3')[-1])\n"
    )
    p = bh.Pipeline("p")
    shown = p.add(bh.program(script(code)))
    with p.run(cpus=1, wait=False) as run:
        assert run[shown].result(LIMIT).stdout == "['0', '1', '2', '3'] 20\n"
