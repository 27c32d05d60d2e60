"""The machine itself: copies and fills of warm memory, blocking sockets. What Bridgehead cannot be faster than."""

from __future__ import annotations

import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

ASK = struct.Struct("<Q")
"""A request: how many bytes to send."""


def timed(call: Callable[[], object]) -> float:
    """Seconds of a call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def in_turns(first: Callable[[], float], second: Callable[[], float], count: int, warm: int = 2) -> tuple[float, float]:
    """The medians of two measurements (seconds each), taken in turns so that what slows one slows the other. The first
    `warm` turns do not count."""
    both = [(first(), second()) for _ in range(count + warm)][warm:]
    return statistics.median(one for one, _ in both), statistics.median(other for _, other in both)


class Tcp:
    """A process at the other end of a blocking connection, and a warm buffer to receive into."""

    def __init__(self, most: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "store.plain", str(most)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        port = int(self._process.stdout.readline())
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = memoryview(bytearray(most))

    def get(self, size: int) -> None:
        """Asks for so many bytes and receives them."""
        self._socket.sendall(ASK.pack(size))
        at = 0
        while at < size:
            got = self._socket.recv_into(self._buffer[at:size])
            if not got:
                raise ConnectionError("the other end of the plain connection is gone")
            at += got

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._process.communicate()


def _serve(most: int) -> None:
    source = memoryview(bytearray(most))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        peer, _ = listener.accept()
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with peer:
        while request := peer.recv(ASK.size, socket.MSG_WAITALL):
            peer.sendall(source[: ASK.unpack(request)[0]])


def read_through(array: Any, buffer: Any) -> None:
    """Copies an array piece by piece into a buffer that stays in the processor's cache."""
    import numpy as np

    step = len(buffer)
    for at in range(0, len(array), step):
        piece = array[at : at + step]
        np.copyto(buffer[: len(piece)], piece)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
