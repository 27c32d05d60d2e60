"""Laws of where ranks are and how many: as was asked, and each knows its place. Ranks that find one another without an MPI do so by the
variables that torch and the like read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import bridgehead as bh
import pytest
from support import bridgehead, check

RENDEZVOUS = '''
"""As torch does it: rank 0 listens where all were told, the others say who they are and get the sum of all ranks."""
import os, socket, time

rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
local = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["NODE_RANK"])
assert local[0] < local[1]
if rank == 0:
    family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
    with socket.create_server(address, family=family) as server:
        others = [server.accept()[0] for _ in range(size - 1)]
    numbers = [int(other.makefile().readline()) for other in others]
    for other in others:
        other.sendall(f"{sum(numbers)}\\n".encode())
    print("sum", sum(numbers), "nodes", len({local[2]}))
else:
    while True:
        try:
            connection = socket.create_connection(address)
            break
        except ConnectionRefusedError:
            time.sleep(0.02)
    connection.sendall(f"{rank}\\n".encode())
    assert int(connection.makefile().readline()) == size * (size - 1) // 2
'''


@bh.mpi(ranks=2)
def places(comm: Any) -> list[tuple[int, int, int]]:
    """Of each rank: its number and size as the product has them, and its node."""
    here = bh.current()
    assert (here.rank, here.ranks) == (comm.rank, comm.size)
    return list(comm.allgather((here.rank, here.ranks, here.node)))


def nodes(found: list[tuple[int, int, int]]) -> list[int]:
    assert [(rank, size) for rank, size, _ in found] == [(rank, len(found)) for rank in range(len(found))]
    return [node for _, _, node in found]


def test_an_elastic_gang_takes_what_is_free() -> None:
    elastic = places.options(ranks="2..4")
    for cpus, expected in ((2, 2), (3, 3), (4, 4), (8, 4)):
        with bh.Executor(cpus) as pool:
            assert len(nodes(pool.submit(elastic).result(60))) == expected


def test_ranks_are_spread_as_was_asked() -> None:
    with bh.Executor(8, agents=2) as pool:
        assert sorted(nodes(pool.submit(places.options(ranks=4, ranks_per_node=2)).result(60))) == [0, 0, 1, 1]
        assert len(set(nodes(pool.submit(places.options(ranks=4)).result(60)))) == 1, "together where there is room"
        found = nodes(pool.submit(places.options(ranks=2, map="node")).result(60))
        assert sorted(found) == [0, 1]
        assert nodes(pool.submit(places.options(ranks=6)).result(60)) in (
            [0] * 4 + [1] * 2,
            [1] * 4 + [0] * 2,
            [0] * 3 + [1] * 3,
        )


@pytest.mark.parametrize("agents", [1, 2])
def test_ranks_without_an_mpi_find_one_another(tmp_path: Path, agents: int) -> None:
    script = tmp_path / "rendezvous.py"
    script.write_text(RENDEZVOUS)
    gang = bh.program(f"{sys.executable} {script}", ranks=4, mpi="none", ranks_per_node=4 // agents)
    check(gang, gives="sum 6 nodes 1\n", agents=agents)


def test_each_line_of_the_log_has_its_rank(program: Path) -> None:
    p = bh.Pipeline("logs")
    node = p.add(bh.program(f"{program} say", ranks=3, ranks_per_node=2))
    with p.run(agents=2, cpus=4) as run:
        assert run[node].result(60).stdout == "out of rank 0\n"
    said = bridgehead("logs", run.id, "t0")
    assert said.returncode == 0, said
    lines = {line.strip() for line in said.stdout.splitlines()}
    for rank in range(3):
        for stream in ("out", "err"):
            assert any(f"[{rank}] {stream} of rank {rank}" in line for line in lines), lines
