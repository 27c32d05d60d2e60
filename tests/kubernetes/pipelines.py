"""The pipelines that the tests submit: `pipelines.py KIND [ARGUMENT]...`. A task says on which host it ran."""

from __future__ import annotations

import os
import pwd
import socket
import sys
import time
from pathlib import Path

import beside
import bridgehead as bh
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SIZE = 256 * 1024
"""Numbers in an array: more than travels inside a message."""


@bh.task(cpus=1)
def field(n: int, seconds: float) -> Array:
    print(f"field {n} on {socket.gethostname()}")
    time.sleep(seconds)
    return np.full(SIZE, float(n))


@bh.task(cpus=1)
def total(fields: list[Array]) -> float:
    """Takes arrays that were made in other pods as a rule."""
    return float(sum(field.mean() for field in fields))


@bh.task(cpus=1)
def value(n: int, seconds: float) -> int:
    time.sleep(seconds)
    return n * n


@bh.task(cpus=1)
def fails(n: int) -> int:
    raise ValueError(f"poison in {n}")


@bh.task(cpus=1)
def around() -> dict[str, object]:
    """What a task sees of its pod."""
    return {
        "uid": os.getuid(),
        "gid": os.getgid(),
        "home": os.access(os.environ["HOME"], os.W_OK),
        "named": pwd.getpwuid(os.getuid()).pw_name if os.getuid() == 0 else os.environ["USER"],
        "token": os.path.exists("/var/run/secrets/kubernetes.io/serviceaccount/token"),
        "secrets": [name for name, text in os.environ.items() if "PRIVATE KEY" in text],
        "beside": beside.WORD,
        "data": Path(beside.__file__).with_name("data.txt").read_text().strip(),
        "cwd": Path("data.txt").exists(),
        "shm": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize,
    }


@bh.task(cpus=1, memory="64MiB")
def eats(mib: int) -> int:
    return len(bytearray(os.urandom(1 << 20)) * mib)


def build(kind: str, words: list[str]) -> bh.Pipeline:
    p = bh.Pipeline(kind)
    if kind == "arrays":  # COUNT SECONDS
        fields = p.map(field, range(int(words[0])), [float(words[1])] * int(words[0]))
        p.add(total, fields)
    elif kind == "values":  # COUNT SECONDS
        p.map(value, range(int(words[0])), [float(words[1])] * int(words[0]))
    elif kind == "fails":
        p.map(fails, range(2))
    elif kind == "around":
        p.add(around)
    elif kind == "eats":  # MIB
        p.add(eats, int(words[0]))
    elif kind == "heavy":  # MIB of arguments, which are random: nothing makes them smaller
        noise = np.random.default_rng(0).integers(0, 255, int(words[0]) << 20, dtype=np.uint8)
        p.add(length, noise)
    else:
        raise SystemExit(f"there is no pipeline {kind}")
    return p


@bh.task(cpus=1)
def length(noise: NDArray[np.uint8]) -> int:
    return len(noise)


if __name__ == "__main__":
    with build(sys.argv[1], sys.argv[2:]).run() as run:
        run.watch()
