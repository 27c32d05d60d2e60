"""Named values of a run: put under a name, taken while the run goes on, followed as streams. The head owns the table of
names; values lie in the nodes' stores, like all large values."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from . import _bridgehead, _context, _launch, errors

if TYPE_CHECKING:
    from ._bridgehead import Client, Guest, Worker
    from ._executor import Executor
    from ._future import Future
    from ._run import Run

    _Listing = tuple[bool, int, list[int], list[str]]

_watches = itertools.count(1)

PATIENCE = 60.0
"""Seconds that a put into a full stream waits by default."""


class Store:
    """The named values of a run, as a mapping from names to the newest version of each.

    Each name has versions, counted from 1. What was put never changes; a large array arrives as a read-only view of the
    store's memory, on another node than its writer's after one transfer to that node. A wait costs no core.
    """

    def __init__(self, connection: Client | Worker | Guest) -> None:
        self._connection = connection

    def put(self, name: str, value: Any, *, version: int | None = None, timeout: float | None = PATIENCE) -> int:
        """Adds a version; its number. In a stream that blocks, waits until there is room for it.

        Args:
            name: the name, up to 256 bytes.
            value: the value.
            version: the number to give it, beyond the newest one. A number that is not changes nothing, so that a writer
                that runs again may put again what it has put before.
            timeout: seconds to wait for room.

        Raises:
            TimeoutError: nobody took the stream's oldest version in time.
            StreamClosed: the name was closed.
            StoreFull: the store has no room for it.
        """
        _check_version(version)
        return self._listing("put", name, value, version=version, timeout=timeout)[1]

    def get(self, name: str, version: int | None = None, timeout: float | None = None) -> Any:
        """The value of a version, of the newest one if none is named; waits up to `timeout` seconds until it is there.

        Raises:
            UnknownName: there is none, and no time to wait for it was given.
            VersionGone: it was there, and its stream has dropped it.
            TimeoutError: it did not come in time.
            ResultLost: it went down with its node.
        """
        _check_version(version)
        return self._value("get", name, version=version, wait=timeout is not None, timeout=timeout)[1]

    def wait(self, name: str, version: int | None = None, timeout: float | None = None) -> int:
        """Waits until a version is there, the first one if none is named; its number. Without a timeout, for as long as it
        takes.

        Raises:
            TimeoutError: it did not come in time.
            StreamBroken: the task that wrote the name has failed.
        """
        _check_version(version)
        return self._listing("wait", name, version=version, wait=True, timeout=timeout)[1]

    def versions(self, name: str) -> list[int]:
        """The versions that can be had, oldest first.

        Raises:
            UnknownName: there is no such name.
        """
        return self._listing("versions", name)[2]

    def delete(self, name: str) -> None:
        """Forgets a name with all its versions; those who follow it come to its end. Views that were taken stay.

        Raises:
            UnknownName: there is no such name.
        """
        self._listing("delete", name)

    def close(self, name: str) -> None:
        """Says that no version follows: those who watch come to the end once they have taken what there is.

        Raises:
            UnknownName: there is no such name.
        """
        self._listing("close", name)

    def stream(self, name: str, *, keep: int | None = None, block: bool = False) -> Stream:
        """Makes a name a stream: it ends with the task that makes it, and keeps the newest `keep` versions (all if `None`).

        Args:
            name: the name.
            keep: how many versions are kept.
            block: a put into a full stream waits until its oldest version has been taken by everybody who watches, and by
                somebody at all; else the oldest one is dropped, taken or not.

        Raises:
            StreamClosed: the name was closed.
        """
        if keep is not None and keep < 1:
            raise ValueError(f"keep={keep}: give 1 or more, or None to keep all versions")
        if block and keep is None:
            raise ValueError("block=True waits for room in a bounded stream: give keep= too")
        self._listing("stream", name, keep=keep or 0, wait=block)
        return Stream(self, name)

    def watch(self, name: str, start: int | None = None, *, timeout: float | None = None) -> Iterator[tuple[int, Any]]:
        """Follows a name: (version, value) of each version that is there and of each that comes, in order, until it is
        closed or the run ends. Versions that were dropped before they were taken are passed by; the numbers show it.

        Args:
            name: the name; it need not be there yet.
            start: the first version to take; the oldest one that is there if `None`.
            timeout: seconds to wait for each version; for ever if `None`.

        Raises:
            TimeoutError: the next version did not come in time.
            StreamBroken: the task that wrote the name has failed.
            ResultLost: a version went down with its node; a watch that starts behind it goes on.
        """
        _check_version(start)
        return self._follow(name, (start or 1) - 1, timeout)

    def _follow(self, name: str, after: int, timeout: float | None) -> Iterator[tuple[int, Any]]:
        watch = next(_watches)
        try:
            while True:
                after, value = self._value("next", name, version=after, about=watch, timeout=timeout)
                if after == 0:
                    return
                yield after, value
                del value  # What its reader has let go of must not stay because of this frame.
        finally:
            if not self._is_over():
                self._connection.name("unwatch", name, about=watch)

    def _is_over(self) -> bool:
        closed = getattr(self._connection, "is_closed", None)
        return closed is not None and bool(closed())

    def __getitem__(self, name: str) -> Any:
        return self.get(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self.put(name, value)

    def __delitem__(self, name: str) -> None:
        self.delete(name)

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def keys(self) -> list[str]:
        """The names, sorted."""
        return self._listing("list", "")[3]

    def __repr__(self) -> str:
        return f"<bridgehead.Store of {len(self)} names>"

    def _listing(
        self, op: str, name: str, value: Any = None, *, timeout: float | None = None, **fields: Any
    ) -> _Listing:
        """What the table says to a request whose answer is no value."""
        future = self._connection.name(op, _checked(name, op), value, **fields)
        return cast("_Listing", self._wait(future, timeout))

    def _value(self, op: str, name: str, *, timeout: float | None, **fields: Any) -> tuple[int, Any]:
        """A version and its value; version 0 where there is none to come. A copy that went down with its node while it was
        on its way is asked for once more: there may be another."""
        name = _checked(name, op)
        for again in (True, False):
            future = self._connection.name(op, name, None, **fields)
            try:
                answer = self._wait(future, timeout)
            except errors.ResultLost as error:
                if again and future._version:
                    continue
                which = f"version {future._version} of {name!r} is lost: " if future._version else ""
                raise errors.ResultLost(f"{which}{error}") from None
            return (future._version, answer) if future._version else (0, None)
        raise AssertionError("the second try returns or raises")

    def _wait(self, future: Future[Any], timeout: float | None) -> Any:
        if timeout is not None and timeout < 0:
            raise ValueError(f"timeout={timeout}: give 0 or more seconds, or None")
        try:
            return future.result(timeout)
        except BaseException as error:
            if future.done():
                raise
            self._connection.name("forget", "", about=future._token)
            if not isinstance(error, TimeoutError):
                raise
        return future.result()  # It is answered now, one way or the other.


class Stream:
    """A stream that this process writes: what `Store.stream` gives. As a context it closes the stream at its end, unless
    that was an error, after which a writer that runs again may go on."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self.name = name

    def put(self, value: Any, *, version: int | None = None, timeout: float | None = PATIENCE) -> int:
        """As `Store.put`."""
        return self._store.put(self.name, value, version=version, timeout=timeout)

    def watch(self, start: int | None = None, *, timeout: float | None = None) -> Iterator[tuple[int, Any]]:
        """As `Store.watch`."""
        return self._store.watch(self.name, start, timeout=timeout)

    def close(self) -> None:
        """As `Store.close`."""
        self._store.close(self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if kind is None:
            self.close()
        return False

    def __repr__(self) -> str:
        return f"<bridgehead.Stream {self.name!r}>"


def store(run: Run | Executor | None = None) -> Store:
    """The named values of a run: of the task's own inside a task, and in a program that a run started; in a driver those of
    `run`, or of the newest run or Executor that is open.

    Raises:
        RuntimeError: no run is open here.
    """
    if run is not None:
        connection: Client | Worker | Guest | None = run._client
        if connection is None:
            raise RuntimeError(f"{run!r} is not connected: named values live only as long as the run's head does")
    else:
        connection = _context.here.connection if _context.here is not None else _launch.newest() or _as_guest()
    if connection is None:
        raise RuntimeError("no run is open here: named values belong to a run; start an Executor or a pipeline first")
    return Store(connection)


_guest: Guest | None = None
_entering = threading.Lock()


def _as_guest() -> Guest | None:
    """This process's connection where it is of a program that a run started, which its variables say; else `None`."""
    global _guest
    if "BRIDGEHEAD_SOCKET" not in os.environ:
        return None
    with _entering:
        if _guest is None:
            _guest = _bridgehead.Guest()
            os.register_at_fork(after_in_child=_forsake)
        return _guest


def _forsake() -> None:
    """In a forked child: what it asks for, it asks for over a connection of its own."""
    global _guest, _entering
    if _guest is not None:
        _guest.forsake()
    _guest, _entering = None, threading.Lock()


def _checked(name: str, op: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a name is a text, not {name!r}")
    if not name and op != "list":
        raise ValueError("a name has 1 to 256 bytes, this one is empty")
    return name


def _check_version(version: int | None) -> None:
    if version is not None and version < 1:
        raise ValueError(f"version {version}: versions count from 1")
