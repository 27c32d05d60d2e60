"""The pipelines that the tests submit: `pipelines.py KIND NOTES [ARGUMENT]...`. A task writes down in the folder NOTES where it
began and ended, which is a record beside the journal's."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import bridgehead as bh
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SIZE = 64 * 1024
"""Numbers in an array: more than travels inside a message."""


@contextlib.contextmanager
def noted(notes: str) -> Iterator[None]:
    _note(notes, "begin")
    yield
    _note(notes, "end")


def _note(notes: str, what: str) -> None:
    """One line, in one write, so that lines of several nodes do not mix."""
    file = os.open(os.path.join(notes, "log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(file, f"{what} {bh.current().task} {socket.gethostname()}\n".encode())
    os.close(file)


def pass_gate(notes: str) -> None:
    while not os.path.exists(os.path.join(notes, "open")):
        time.sleep(0.05)


@bh.task(cpus=1)
def work(notes: str, n: int, seconds: float) -> int:
    with noted(notes):
        time.sleep(seconds)
    return n * n


@bh.task(cpus=1)
def poisoned(notes: str, n: int, every: int) -> int:
    with noted(notes):
        if n % every == 0:
            raise ValueError(f"poison in {n}")
    return n


@bh.task(cpus=1)
def field(notes: str, n: int, seconds: float) -> Array:
    with noted(notes):
        time.sleep(seconds)
    return np.full(SIZE, float(n))


@bh.task(cpus=1)
def pair(notes: str, one: Array, other: Array) -> float:
    """Takes two arrays, which were made on different nodes as a rule."""
    with noted(notes):
        return float(one.mean() + 1000 * other.mean())


@bh.task(cpus=1)
def gate(notes: str) -> str:
    with noted(notes):
        pass_gate(notes)
    return socket.gethostname()


@bh.task(cpus=1)
def breeder(notes: str) -> str:
    """Starts a process that leaves its session, and waits at the gate."""
    subprocess.Popen(["sleep", "3600"], start_new_session=True)
    subprocess.Popen("sleep 3600 & sleep 3600", shell=True)
    with noted(notes):
        pass_gate(notes)
    return "bred"


@bh.task(cpus=1)
def time_left(notes: str) -> float | None:
    """Seconds until the time limit, as a task may see them."""
    with noted(notes):
        return bh.current().remaining()


@bh.task(cpus=1, gpus=1)
def device(notes: str) -> tuple[str, tuple[int, ...], str]:
    with noted(notes):
        return socket.gethostname(), bh.current().devices, os.environ.get("CUDA_VISIBLE_DEVICES", "")


@bh.task(cpus=1)
def total(*values: float) -> float:
    return sum(values)


def build(kind: str, notes: str, *arguments: str) -> bh.Pipeline:
    p = bh.Pipeline(kind)
    numbers = [float(word) for word in arguments]
    if kind == "sweep":  # N SECONDS: lazily, from a generator.
        p.add(total, *p.map(work, (notes for _ in range(int(numbers[0]))), range(int(numbers[0])), _same(numbers)))
    elif kind == "poison":  # N EVERY
        n = int(numbers[0])
        p.map(poisoned, (notes for _ in range(n)), range(n), (int(numbers[1]) for _ in range(n)))
    elif kind == "moved":  # N SECONDS
        n = int(numbers[0])
        fields = p.map(field, (notes for _ in range(n)), range(n), _same(numbers))
        p.add(total, *p.map(pair, (notes for _ in range(n)), fields, fields[n // 2 :] + fields[: n // 2]))
    elif kind == "gates":  # N
        for _ in range(int(numbers[0])):
            p.add(gate, notes)
    elif kind == "breed":  # N
        for _ in range(int(numbers[0])):
            p.add(breeder, notes)
    elif kind == "left":
        p.add(time_left, notes)
    elif kind == "devices":  # N
        for _ in range(int(numbers[0])):
            p.add(device, notes)
    elif kind == "groups":  # A small gang makes arrays, a larger one takes them.
        small, large = p.group("make", nodes=1), p.group("take", nodes=2)
        fields = [small.add(field, notes, n, 0.1) for n in range(4)]
        large.add(total, *[large.add(pair, notes, fields[n], fields[3 - n]) for n in range(4)])
    return p


def _same(numbers: list[float]) -> Iterator[float]:
    return (numbers[1] for _ in range(int(numbers[0])))


if __name__ == "__main__":
    build(sys.argv[1], *sys.argv[2:]).run()
