"""Laws of the C library and the Fortran module: programs in C and Fortran share named arrays with Python tasks of their run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import bridgehead as bh
import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
LIMIT = 120.0
"""Seconds within which what is waited for must come."""
TYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "g", "c8", "c16", "G"]


def newest_library() -> Path | None:
    """The folder of the library that was built last."""
    built = [path for kind in ("debug", "release") for path in ROOT.glob(f"target/{kind}/libbridgehead.so")]
    return max(built, key=lambda path: path.stat().st_mtime).parent if built else None


@pytest.fixture(scope="session")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the library is installed as users install it."""
    library = newest_library()
    if library is None:
        pytest.skip("no C library: run `cargo build -p bridgehead-c`")
    folder = tmp_path_factory.mktemp("prefix")
    subprocess.run([ROOT / "launcher/c/install", library, folder], check=True)
    return folder


def compiled(command: list[str], prefix: Path, out: Path) -> str:
    """Compiles with a compiler and the flags that pkg-config would give: the program."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} here")
    libraries = [f"-L{prefix}/lib", "-lbridgehead", f"-Wl,-rpath,{prefix}/lib", "-lpthread", "-lm"]
    done = subprocess.run([*command, "-o", str(out), *libraries], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return str(out)


@pytest.fixture(scope="session")
def laws(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    source, out = ROOT / "launcher/c/tests/laws.c", tmp_path_factory.mktemp("c") / "laws"
    return compiled(["cc", "-std=c11", "-Wall", "-Wextra", f"-I{prefix}/include", str(source)], prefix, out)


@pytest.fixture(scope="session")
def fortran(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("fortran")
    module, source = prefix / "share/bridgehead/bridgehead.f90", ROOT / "launcher/c/tests/laws.f90"
    return compiled(["gfortran", "-std=f2018", f"-J{folder}", str(module), str(source)], prefix, folder / "laws")


def follow(name: str) -> list[tuple[int, tuple[int, ...], float]]:
    return [(step, array.shape, float(array.sum())) for step, array in bh.store().watch(name, timeout=LIMIT)]


def produce(name: str, steps: int, n: int) -> None:
    with bh.store().stream(name, keep=2, block=True) as stream:
        for step in range(1, steps + 1):
            stream.put(np.full((n, n), float(step), order="F"))


def wait_for(name: str) -> None:
    bh.store().wait(name, timeout=LIMIT)


@pytest.mark.parametrize("agents", [1, 2])
@pytest.mark.parametrize("in_place", [0, 1])
@pytest.mark.parametrize("n", [10, 300])
def test_steps_go_from_c_to_python(laws: str, agents: int, in_place: int, n: int) -> None:
    p = bh.Pipeline("c-to-python")
    solver = p.add(bh.program(f"{laws} solve field 5 {n} {in_place}"))
    found = p.add(bh.task(follow), "field")
    with p.run(agents=agents, cpus=2) as run:
        total = n * n * (n * n - 1) / 2
        assert run[found].result(LIMIT) == [(step, (n, n), total + step * n * n) for step in range(1, 6)]
        assert run[solver].result(LIMIT).stdout == "over\n"


@pytest.mark.parametrize("agents", [1, 2])
@pytest.mark.parametrize("n", [10, 300])
def test_steps_go_from_python_to_c(laws: str, agents: int, n: int) -> None:
    p = bh.Pipeline("python-to-c")
    p.add(bh.task(produce), "field", 4, n)
    reader = p.add(bh.program(f"{laws} follow field"))
    with p.run(agents=agents, cpus=2) as run:
        lines = [f"{step} 2 1 {step * n * n}" for step in range(1, 5)]
        assert run[reader].result(LIMIT).stdout.split("\n") == [*lines, "over", ""]


def test_c_reads_on_one_node_what_c_put_on_another(laws: str) -> None:
    p = bh.Pipeline("c-to-c")
    p.add(bh.program(f"{laws} solve field 4 400 1"))
    reader = p.add(bh.program(f"{laws} follow field"))
    with p.run(agents=2, cpus=2) as run:
        total = 160_000 * 159_999 // 2
        lines = [f"{step} 2 0 {total + step * 160_000}" for step in range(1, 5)]
        assert run[reader].result(LIMIT).stdout.split("\n") == [*lines, "over", ""]


def run_alone(command: str, before: Any = None, **options: Any) -> tuple[str, Any]:
    """Runs a program while this driver puts what it needs: what it printed, and what `before` gave."""
    p = bh.Pipeline("alone")
    node = p.add(bh.program(command))
    with p.run(cpus=1, wait=False, **options) as run:
        given = before(bh.store(run)) if before else None
        return run[node].result(LIMIT).stdout, given


def test_every_type_goes_both_ways(laws: str) -> None:
    def put(store: bh.Store) -> None:
        for kind in map(np.dtype, TYPES):
            store.put(f"python.{ord(kind.kind) << 8 | kind.itemsize}", np.zeros((5, 1), kind))

    assert run_alone(f"{laws} types", put)[0] == "over\n"


def test_what_is_wrong_has_a_code_and_words(laws: str) -> None:
    said, _ = run_alone(f"{laws} errors", lambda store: store.put("pickled", [1, 2]), store="64MiB")
    assert said == "over\n"


def test_threads_share_a_store(laws: str) -> None:
    assert run_alone(f"{laws} threads")[0] == "over\n"


def test_a_program_that_is_killed_while_it_holds_leaves_room(laws: str) -> None:
    p = bh.Pipeline("killed")
    victim, _ = p.add(bh.program(f"{laws} hold")), p.add(bh.task(wait_for), "over")
    with p.run(cpus=2, store="64MiB", wait=False) as run:
        store = bh.store(run)
        store.put("big", np.ones(4_000_000))
        pid = int(store.get("pid", timeout=LIMIT)[0])
        store.delete("big")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(bh.TaskError):
            run[victim].result(LIMIT)
        for _ in range(4):  # Each needs the room that the dead program held.
            store.put("again", np.ones(4_000_000))
            store.delete("again")
        store.put("over", True)


def test_outside_of_a_run_it_says_so(laws: str) -> None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("BRIDGEHEAD_")}
    done = subprocess.run([laws], env=clean, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 3 and done.stdout.startswith("11 this process is no program of a run")


def test_fortran_takes_part(fortran: str) -> None:
    p = bh.Pipeline("fortran")
    program, steps = p.add(bh.program(fortran)), p.add(bh.task(follow), "steps")
    with p.run(cpus=2, wait=False) as run:
        store = bh.store(run)
        store.put("python.c", np.arange(60_000.0).reshape(200, 300))
        store.put("python.f", np.arange(60_000.0).reshape((200, 300), order="F"))
        matrix, cube = store.get("matrix", timeout=LIMIT), store.get("cube", timeout=LIMIT)
        np.testing.assert_array_equal(matrix, np.arange(1.0, 13.0).reshape((3, 4), order="F"))
        np.testing.assert_array_equal(cube, np.arange(1.0, 25.0).reshape((2, 3, 4), order="F"))
        kinds = [store.get(name, timeout=LIMIT) for name in ("r32", "i32", "i64")]
        assert [(str(a.dtype), a.shape) for a in kinds] == [("float32", (3, 4)), ("int32", (3,)), ("int64", (1, 2))]
        assert run[steps].result(LIMIT) == [(step, (3, 4), 12.0 * step) for step in range(1, 6)]
        with store.stream("answers") as stream:
            for number in (1, 2, 3):
                stream.put(np.array([number], np.int32))
        assert run[program].result(LIMIT).stdout == "over 6\n"


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_example_finds_the_truth(prefix: Path, ranks: int) -> None:
    if ranks > 1 and shutil.which("mpicc") is None:
        pytest.skip("no mpicc here")
    command = [sys.executable, str(ROOT / "examples/c_solver.py"), "--prefix", str(prefix), "--ranks", str(ranks)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert "field 12: diffusivity 0.7000, heater 0.05000" in done.stdout, done.stderr


def shapes(ranks: int) -> list[list[tuple[int, ...]]]:
    watches = [bh.store().watch(f"field.{rank}", timeout=LIMIT) for rank in range(ranks)]
    return [[array.shape for _, array in step] for step in zip(*watches, strict=True)]


def test_ranks_on_two_nodes_publish_their_blocks(prefix: Path, tmp_path: Path) -> None:
    command = ["mpicc", "-DUSE_MPI", "-std=c11", f"-I{prefix}/include", str(ROOT / "examples/c/heat.c")]
    heat = compiled(command, prefix, tmp_path / "heat")
    p = bh.Pipeline("ranks")
    p.add(bh.program(f"{heat} 0.7 0.05 3", ranks=3))
    found = p.add(bh.task(shapes), 3)
    with p.run(agents=2, cpus=4) as run:
        assert run[found].result(LIMIT) == [[(2, 64, 192)] * 3] * 3


def test_the_example_in_fortran_follows_c(prefix: Path, tmp_path: Path) -> None:
    module, examples = prefix / "share/bridgehead/bridgehead.f90", ROOT / "examples/c"
    mean = compiled(
        ["gfortran", "-std=f2018", f"-J{tmp_path}", str(module), str(examples / "mean.f90")], prefix, tmp_path / "mean"
    )
    heat = compiled(["cc", "-std=c11", f"-I{prefix}/include", str(examples / "heat.c")], prefix, tmp_path / "heat")
    p = bh.Pipeline("c-to-fortran")
    p.add(bh.program(f"{heat} 0.7 0.05 4"))
    shown = p.add(bh.program(mean))
    with p.run(cpus=2) as run:
        lines = run[shown].result(LIMIT).stdout.split()
        assert lines[1::4] == ["1:", "2:", "3:", "4:"]
        means = [float(number) for number in lines[3::4]]
        assert means == sorted(means) and means[0] > 0


def test_valgrind_finds_nothing(laws: str) -> None:
    if shutil.which("valgrind") is None:
        pytest.skip("no valgrind here")
    command = f"valgrind --quiet --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite {laws} errors"
    said, _ = run_alone(command, lambda store: store.put("pickled", [1, 2]), store="64MiB")
    assert said == "over\n"
