"""What type checkers see of the front end. Checked by mypy and pyright, never run."""

from __future__ import annotations

from typing import assert_type

import bridgehead as bh


@bh.task
def bare(x: int, y: str = "") -> float:
    return float(x)


@bh.task(cpus=2, memory="8GiB", retries=bh.Retries(oom=1), timeout="30m")
def with_options(name: str) -> list[int]:
    return [len(name)]


def plain(a: int, *, b: bytes) -> dict[str, int]:
    return {"a": a + len(b)}


assert_type(bare(1), float)
assert_type(bare.options(gpus=4)(1, y="z"), float)
assert_type(with_options("x"), list[int])
bare("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

p = bh.Pipeline("typed")
node = p.add(bare, 1)
assert_type(node, bh.Node[float])
assert_type(node.after(p.add(with_options, "a")), bh.Node[float])
assert_type(p.map(with_options, ["a", "b"]), list[bh.Node[list[int]]])
assert_type(p.map(bare, [1, 2], ["a", "b"]), list[bh.Node[float]])

program = bh.program("convert {x}", outputs={"image": "{x}.png"})
assert_type(p.add(program, x=1), bh.Node[bh.ProgramResult])
assert_type(program(x=1), bh.ProgramResult)
assert_type(program(x=1).stdout, str)

run = p.run()
assert_type(run, bh.Run)
assert_type(run[node], bh.Future[float])
assert_type(run[node].result(), float)
assert_type(p.plan(), str)

with bh.Executor(2) as executor:
    assert_type(executor.submit(plain, 1, b=b""), bh.Future[dict[str, int]])
    assert_type(executor.submit(plain, 1, b=b"").result(), dict[str, int])
    executor.submit(plain, "1", b=b"")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

assert_type(bh.put([1.5]), bh.Ref[list[float]])
assert_type(bh.get(bh.put("a")), str)
assert_type(bh.get(bh.put("a", gpu=0), gpu=True), bh.DeviceArray)
assert_type(bh.get([bh.put("a")], gpu=True), list[bh.DeviceArray])
assert_type(bh.get([bh.put("a")], writable=True), list[str])
assert_type(bh.submit(bare, 1), bh.Future[float])
assert_type(bh.current().remaining(), float | None)


@bh.mpi(ranks=4, cpus=2, map="numa")
def solve(comm: object, x: float, *, tol: float = 1e-3) -> str:
    return f"{comm} {x} {tol}"


@bh.mpi(ranks="2..8", returns="shards")
def parts(comm: object, n: int) -> list[float]:
    return [float(n)]


assert_type(p.add(solve, 1.0, tol=0.1), bh.Node[str])
assert_type(p.add(parts, 3), bh.Node[bh.ShardedArray])
assert_type(p.map(solve, [1.0, 2.0]), list[bh.Node[str]])
assert_type(bh.submit(solve, 1.0), bh.Future[str])
solve.options(ranks=8)
bh.mpi(ranks=2, gpu=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
bh.program("lmp", ranks=8, mpi="openmpi", launcher="srun", cpus=2)
bh.program("lmp", rank=8)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
