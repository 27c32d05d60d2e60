"""Where a pipeline goes: this machine or a scheduler. Owns the words in which users ask for one, and the questions that
are put to it through the program; how a scheduler is spoken to is the program's."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
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
        return _given(self, lists=("setup", "native"), paths=("token_file",))


Slurm.__init__ = names_options(Slurm.__init__)  # type: ignore[method-assign]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kubernetes:
    """A Kubernetes cluster, and what to ask it for: ``pipeline.submit(on=bh.Kubernetes(nodes=3, queue="team"))``.

    What is left out is the cluster's to decide, or has a default. The command line has the same names: ``--nodes 3``, or
    ``--kubernetes KEY=VALUE`` for the rarer ones.

    Attributes:
        nodes: pods of the gang, one agent in each; they start together or not at all.
        cpus: cores of each pod; 1 where it is left out. Requests and limits are equal.
        memory: memory of each pod, ``"8GiB"`` for instance; 2 GiB for each core where it is left out.
        gpus: GPUs of each pod.
        gpu_resource: what a GPU is called there; ``"nvidia.com/gpu"`` where it is left out.
        resources: further resources of each pod, ``{"rdma/hca": 1}`` for instance.
        shm: most bytes of ``/dev/shm``, a part of the pod's memory; a quarter of it where it is left out.
        time: time limit, ``"30m"``, ``"2h"`` or ``"1-12:00:00"`` for instance.
        flavor: ``"volcano"``, ``"kueue"``, ``"appwrapper"``, ``"indexed-job"`` or ``"code-engine"``; chosen by what the
            cluster has where it is left out.
        queue: the queue of Volcano, or the LocalQueue of Kueue.
        priority: the priority class of the pods.
        restarts: how often the gang starts again after it lost a pod; 3 where it is left out.
        image: the image that the agents run in; ``BRIDGEHEAD_IMAGE`` where it is left out.
        pull_policy: when it is pulled, ``"Always"``, ``"IfNotPresent"`` or ``"Never"``.
        pull_secrets: Secrets with credentials for its registry.
        python: the Python interpreter in the image; ``"python3"`` where it is left out.
        namespace: the namespace; the context's where it is left out.
        context: the context of the kubeconfig; the current one where it is left out.
        kubeconfig: the kubeconfig; ``KUBECONFIG`` or ``~/.kube/config`` where it is left out.
        volume: a PersistentVolumeClaim that keeps the run folder. Without one the folder goes with the head's pod: then a
            gang that starts again begins anew, and results have to be fetched within ``keep``.
        keep: how long the head waits for its results to be fetched, ``"1h"`` where it is left out; without a volume only.
        ttl: how long the cluster keeps the ended job; a day where it is left out.
        node_selector: labels that nodes must have.
        tolerations: tolerations, as in a pod's ``spec``.
        topology: the label of nodes within whose equal values all pods are to be, ``"topology.kubernetes.io/rack"``.
        topology_required: whether that is a must; a wish where it is left out.
        labels: labels of all objects.
        annotations: annotations of all pods.
        env: variables of agents and tasks. Never a secret.
        run_as_user: the user id of the pods; 65532 where it is left out, on OpenShift the one that it gives.
        fs_group: the group that files of volumes belong to.
        rdma: pods may lock memory, which the restricted profile does not allow.
        pod: merged into the pod's ``spec`` (RFC 7386), for what has no option.
    """

    nodes: int | None = None
    cpus: int | None = None
    memory: str | None = None
    gpus: int | None = None
    gpu_resource: str | None = None
    resources: Mapping[str, int] | None = None
    shm: str | None = None
    time: str | None = None
    flavor: str | None = None
    queue: str | None = None
    priority: str | None = None
    restarts: int | None = None
    image: str | None = None
    pull_policy: str | None = None
    pull_secrets: Sequence[str] | None = None
    python: str | None = None
    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | os.PathLike[str] | None = None
    volume: str | None = None
    keep: str | None = None
    ttl: str | None = None
    node_selector: Mapping[str, str] | None = None
    tolerations: Sequence[Mapping[str, Any]] | None = None
    topology: str | None = None
    topology_required: bool | None = None
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    env: Mapping[str, str] | None = None
    run_as_user: int | None = None
    fs_group: int | None = None
    rdma: bool | None = None
    pod: Mapping[str, Any] | None = None

    def _asked(self) -> dict[str, Any]:
        """What was given, as `run.json` has it."""
        return _given(self, lists=("pull_secrets", "tolerations"), paths=("kubeconfig",))


Kubernetes.__init__ = names_options(Kubernetes.__init__)  # type: ignore[method-assign]

Target = Slurm | Kubernetes
"""A scheduler, and what to ask it for."""

_NAMES = {Slurm: "slurm", Kubernetes: "kubernetes"}


def _given(target: Target, lists: Sequence[str], paths: Sequence[str]) -> dict[str, Any]:
    """What was given of a target's options; a lone text counts as a list of one."""
    given = {field.name: getattr(target, field.name) for field in dataclasses.fields(target)}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if name in lists:
            given[name] = [value] if isinstance(value, str) else list(value)
        elif name in paths:
            given[name] = os.path.abspath(os.fspath(value))
        elif isinstance(value, Mapping):
            given[name] = dict(value)
    return given


def chosen(on: Target | None) -> dict[str, Any] | None:
    """The target as `run.json` has it: the script's words, overridden one by one by the command line's. `None` is this
    machine.

    Raises:
        PlanError: options of a scheduler without one.
    """
    if on is not None and not isinstance(on, Target):
        raise errors.PlanError(
            f"on={on!r}: give a bridgehead.Slurm or a bridgehead.Kubernetes, or leave it out for this machine"
        )
    told = json.loads(os.environ.get("BRIDGEHEAD_TARGET") or "{}")
    own = _NAMES[type(on)] if on is not None else None
    backend = told.get("backend") or own
    if backend == "local":
        return None
    if backend is None:
        if told.get("options"):
            names = ", ".join(told["options"])
            raise errors.PlanError(
                f"{names}: options for a scheduler, and none is named: give --on slurm or --on kubernetes"
            )
        return None
    # What the script asks of one scheduler means nothing to another.
    options = on._asked() if on is not None and own == backend else {}
    image = os.environ.get("BRIDGEHEAD_IMAGE")
    if backend == "kubernetes" and image:
        options.setdefault("image", image)
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
