"""Where a pipeline goes: this machine or a scheduler. Owns the words in which users ask for one, and the questions that
are put to it through the program; how a scheduler is spoken to is the program's."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any

from . import errors
from ._task import names_options


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slurm:
    """A Slurm cluster, and what to ask it for: ``pipeline.submit(on=bh.Slurm(nodes=3, partition="main", time="30m"))``.

    What is left out is the cluster's to decide. The command line has the same names: ``--nodes 3``, or
    ``--slurm KEY=VALUE`` for the rarer ones.

    Attributes:
        nodes: nodes of the gang, one agent on each; they start together or not at all.
        cpus: cores of each node; whole nodes that are shared with nobody where it is left out.
        memory: memory of each node, ``"8GiB"`` for instance.
        memory_per_cpu: memory for each core, where the site wants it so.
        gpus: GPUs of each node.
        gpu_type: their type, as the site names it.
        gpu_form: how GPUs are asked for, ``"gres"`` or ``"gpus_per_node"``.
        time: time limit, ``"30m"``, ``"2h"`` or ``"1-12:00:00"`` for instance.
        partition: the partition.
        account: the account to be charged.
        qos: the quality of service.
        constraint: features that the nodes must have.
        reservation: the reservation.
        exclude: nodes not to use, ``"n[1-3]"`` for instance.
        nodelist: nodes to use.
        licenses: licenses, ``"ansys:2"`` for instance.
        requeue: whether Slurm may start the job again after a preemption or the loss of its first node.
        array: ``"N"`` or ``"N%M"``: N equal jobs of ``nodes`` nodes each, at most M at a time; all work at the same run,
            each as soon as it starts.
        signal_before: seconds before the time limit at which the run is wound up, to go on in a follow-up job.
        continuations: most follow-up jobs.
        container: an image in which the agents run.
        container_tool: ``"apptainer"`` or ``"pyxis"``.
        setup: lines of shell before the agents start, ``"module load cuda"`` for instance.
        native: options of ``sbatch`` that are handed on as they are.
        door: ``"rest"`` or ``"cli"``; chosen by what is there if left out.
        rest_url: where slurmrestd listens, ``"http://host:6820"`` or ``"unix:/path"``.
        token_file: a file with a token for slurmrestd.
        user: the user's name at slurmrestd.
    """

    nodes: int | None = None
    cpus: int | None = None
    memory: str | None = None
    memory_per_cpu: str | None = None
    gpus: int | None = None
    gpu_type: str | None = None
    gpu_form: str | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    exclude: str | None = None
    nodelist: str | None = None
    licenses: str | None = None
    requeue: bool | None = None
    array: str | None = None
    signal_before: int | None = None
    continuations: int | None = None
    container: str | None = None
    container_tool: str | None = None
    setup: Sequence[str] | None = None
    native: Sequence[str] | None = None
    door: str | None = None
    rest_url: str | None = None
    token_file: str | os.PathLike[str] | None = None
    user: str | None = None

    def _asked(self) -> dict[str, Any]:
        """What was given, as `run.json` has it."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        given = {name: value for name, value in given.items() if value is not None}
        for name in ("setup", "native"):
            if name in given:
                given[name] = [given[name]] if isinstance(given[name], str) else list(given[name])
        if "token_file" in given:
            given["token_file"] = os.path.abspath(os.fspath(given["token_file"]))
        return given


Slurm.__init__ = names_options(Slurm.__init__)  # type: ignore[method-assign]


def chosen(on: Slurm | None) -> dict[str, Any] | None:
    """The target as `run.json` has it: the script's words, overridden one by one by the command line's. `None` is this
    machine.

    Raises:
        PlanError: options of a scheduler without one.
    """
    if on is not None and not isinstance(on, Slurm):
        raise errors.PlanError(f"on={on!r}: give a bridgehead.Slurm, or leave it out for this machine")
    told = json.loads(os.environ.get("BRIDGEHEAD_TARGET") or "{}")
    backend = told.get("backend") or ("slurm" if on is not None else None)
    if backend == "local":
        return None
    if backend is None:
        if told.get("options"):
            names = ", ".join(told["options"])
            raise errors.PlanError(f"{names}: options for a scheduler, and none is named: give --on slurm")
        return None
    options = on._asked() if on is not None else {}
    return {"backend": backend, "options": options | told.get("options", {})}


def ask(binary: str, question: dict[str, Any]) -> dict[str, Any]:
    """Puts a question to a target's scheduler.

    Raises:
        PlanError: the target's options make no sense.
        SchedulerError: the scheduler refuses, or cannot be reached.
    """
    return _run([binary, "backend"], json.dumps(question).encode())


def launch(binary: str, folder: str) -> dict[str, Any]:
    """Hands the gangs of a run folder to its scheduler: jobs, and the way that was taken.

    Raises:
        SchedulerError: it refused, or cannot be reached.
    """
    return _run([binary, "launch", "--run-dir", folder], b"")


_WRONG_USAGE = 2


_OURS = ("DO", "TARGET", "JSON", "FOUND_FD", "AGENTS", "CPUS", "STORE", "TRACE", "MAX_RUNNING", "MAX_FAILS")
"""Words of the command line to this script (`BRIDGEHEAD_...`), which its job must not take for its own."""


def _run(argv: list[str], text: bytes) -> dict[str, Any]:
    ours = {f"BRIDGEHEAD_{name}" for name in _OURS}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(argv, input=text, capture_output=True, check=False, env=environment)
    said = done.stderr.decode(errors="replace").strip().removeprefix("bridgehead: ")
    if done.returncode == _WRONG_USAGE:
        error = errors.PlanError(said)
        error.exit_code = _WRONG_USAGE
        raise error
    if done.returncode != 0:
        raise errors.SchedulerError(said or f"{argv[0]} ended with {done.returncode}", exit_code=done.returncode)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
