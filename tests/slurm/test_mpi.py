"""Laws of MPI gangs in a real allocation: ranks on several nodes, started by our agents or by srun, find one another and compute what
they should."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import bridgehead as bh
import pytest
from cluster import ROOT, Cluster
from support import Submitted, User, check

SOURCE = ROOT / "tests/mpi/gang.c"
ON = ("--nodes", 3, "--cpus", 2, "--time", "10m")
VALUES = "size 6 ring 15 sum 21 big 6 near 2"


def built(user: User, family: str) -> Path:
    """The test program of this MPI, where all nodes see it."""
    compiler = shutil.which(f"mpicc.{family}")
    if compiler is None:
        pytest.skip(f"there is no mpicc.{family}: tests/mpi/install brings it")
    target = user.home.parent / f"gang-{family}"
    subprocess.run([compiler, "-O1", "-o", target, SOURCE], check=True)
    return target


def submitted(user: User, *words: object) -> Submitted:
    out = user.check("submit", "--on", "slurm", *ON, Path(__file__).with_name("ranks.py"), *words)
    return Submitted(user, out.strip(), user.new_notes())


@pytest.mark.parametrize("family", ["mpich", "openmpi"])
def test_ranks_on_three_nodes_compute_what_they_should(cluster: Cluster, user: User, family: str) -> None:
    run = submitted(user, built(user, family))
    check(run)
    assert bh.connect(str(run.folder)).results()["program"].stdout == f"{VALUES}\n"
    why = user.check("why", run.id, "t0")
    assert why.count("Rank ") == 6 and "6 ranks on agent 0" in why, why


def test_a_function_of_ranks_on_three_nodes_computes_what_it_should(cluster: Cluster, user: User) -> None:
    pytest.importorskip("mpi4py")
    run = submitted(user, "function")
    check(run)
    assert bh.connect(str(run.folder)).results() == {"around": (15, 3)}


def test_srun_starts_ranks_where_the_site_wants_it(cluster: Cluster, user: User) -> None:
    """Slurm's own PMI-2, for the MPICH that Debian built with PMI-2's simple form as well."""
    kinds = user.run("srun", "--mpi=list")
    if "pmi2" not in kinds.out + kinds.err:
        pytest.skip(f"this Slurm has no pmi2: {kinds.out}{kinds.err}")
    run = submitted(user, built(user, "mpich"), "srun", "mpich")
    check(run)
    out = bh.connect(str(run.folder)).results()["program"].stdout
    assert VALUES.partition(" near")[0] in out, out  # Which ranks are neighbours is Slurm's to say.
