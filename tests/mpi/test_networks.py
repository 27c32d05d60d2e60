"""Laws of gangs over a network: agents on hosts of their own, which share nothing but files, start ranks that talk over the link
between the hosts, in both families of addresses, and not to an interface that leads nowhere."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bridgehead as bh
import pytest
from support import FAMILY, PROGRAM, check, expected, kill
from test_shapes import RENDEZVOUS

HERE = Path(__file__).parent
HOSTS = 3


@bh.mpi(ranks=3, ranks_per_node=1)
def around(comm: Any) -> tuple[list[str], int, float]:
    """The hosts, and whether 1 MiB goes round."""
    import numpy as np

    numbers = np.full(1 << 17, float(comm.rank))
    taken = np.empty_like(numbers)
    comm.Sendrecv(numbers, (comm.rank + 1) % comm.size, recvbuf=taken, source=(comm.rank - 1) % comm.size)
    return comm.allgather(os.uname().nodename), comm.allreduce(comm.rank), float(comm.allreduce(taken.mean()))


@bh.mpi(ranks=3, ranks_per_node=1, returns="shards")
def parts(comm: Any) -> Any:
    import numpy as np

    return np.full(500_000, float(comm.rank))


@bh.task
def total(array: Any) -> float:
    return float(array[:].sum())


class Network:
    """The hosts, for the runs of one test."""

    def __init__(self, folder: Path, family: str) -> None:
        self.folder = folder
        words = [HERE / "hosts", "up", folder, str(HOSTS), family, str(os.getpid())]
        done = subprocess.run(words, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        if done.returncode != 0:
            self.down()
            pytest.fail(done.stderr)

    def bytes_sent(self, host: int) -> int:
        words = [HERE / "hosts", "enter", self.folder, str(host), "cat", "/proc/net/dev"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
        line = next(line for line in done.stdout.splitlines() if line.strip().startswith("eth0:"))
        return int(line.split(":")[1].split()[8])

    def down(self) -> None:
        for name in ["switch", *[f"host{host}" for host in range(HOSTS)]]:
            if (self.folder / name).exists():
                kill(int((self.folder / name).read_text()))
        shutil.rmtree(self.folder)


@pytest.fixture(params=["4", "6", "4+"], ids=["ipv4", "ipv6", "decoy"])
def network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Network]:
    made = Network(tmp_path / "hosts", request.param)
    monkeypatch.setenv("BRIDGEHEAD_BIN", str(HERE / "host-bridgehead"))
    monkeypatch.setenv("BHT_HOSTS", str(made.folder))
    monkeypatch.setenv("BHT_COUNT", str(HOSTS))
    monkeypatch.setenv("BHT_PROGRAM", str(PROGRAM))
    if request.param == "4+":  # An MPI tries all interfaces; it is told which one leads to the others.
        monkeypatch.setenv("OMPI_MCA_btl_tcp_if_include", "eth0")
        monkeypatch.setenv("FI_TCP_IFACE", "eth0")
    yield made
    made.down()


def crossing(network: Network, work: Callable[[], Any]) -> None:
    """At least 2 MiB cross the link of the first host while this is done."""
    before = network.bytes_sent(0)
    work()
    assert network.bytes_sent(0) - before > 1 << 20, "the ranks did not talk over the network"


@pytest.mark.parametrize("built", ["program", "wheel_program"])
def test_a_program_talks_over_the_network(network: Network, built: str, request: pytest.FixtureRequest) -> None:
    leaves = {"GANG_LEAVES": "1"} if (FAMILY, built) == ("mpich", "program") else {}  # See gang.c.
    gang = bh.program(str(request.getfixturevalue(built)), ranks=6, ranks_per_node=2, env=leaves)
    crossing(network, lambda: check(gang, gives=expected(6, 2), agents=HOSTS, cpus=12))


def test_a_function_talks_over_the_network_and_its_shards_lie_where_they_were_made(network: Network) -> None:
    def work() -> None:
        p = bh.Pipeline("over")
        node = p.add(around)
        summed = p.add(total, p.add(parts))
        with p.run(agents=HOSTS, cpus=12) as run:
            hosts, ranks, mean = run[node].result(60)
            assert sorted(hosts) == [f"host{n}" for n in range(HOSTS)] and (ranks, mean) == (3, 3.0)
            assert run[summed].result(60) == 500_000 * 3

    crossing(network, work)


def test_ranks_without_an_mpi_meet_over_the_network(network: Network, tmp_path: Path) -> None:
    script = tmp_path / "rendezvous.py"
    script.write_text(RENDEZVOUS)
    gang = bh.program(f"/usr/bin/env python3 {script}", ranks=3, mpi="none", ranks_per_node=1)
    check(gang, gives="sum 3 nodes 1\n", agents=HOSTS, cpus=12)
