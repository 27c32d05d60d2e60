"""References: a value put once, given to many tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Generic, Literal, TypeVar, overload

from . import _bridgehead, _context, _device, _launch, errors
from ._device import DeviceArray

T = TypeVar("T")


class Ref(Generic[T]):
    """Stands for a value that was `put`. Given to a task as an argument, it arrives there as the value.

    A large value lies in the store of this node for as long as a reference or a task needs it.
    """

    __slots__ = ("__weakref__", "_kept")

    def __init__(self, kept: _bridgehead.Kept) -> None:
        self._kept = kept

    def __reduce__(self) -> tuple[Any, ...]:
        from ._pipeline import Pipeline

        owner = _bridgehead.packing_owner()
        if isinstance(owner, Pipeline):
            return owner.node_of(self).__reduce__()
        number = None if owner is None else _bridgehead.note_kept(self._kept)
        if number is None:
            raise TypeError("a Ref can only be an argument of a task: return the value itself, or `bridgehead.get` it")
        return (_bridgehead._input, (number,))

    def __repr__(self) -> str:
        return f"<bridgehead.Ref {self._kept.nbytes():,} bytes>"


def put(value: T, *, gpu: int | None = None) -> Ref[T]:
    """Packs a value, once, for as many tasks as take it.

    Inside a task a large value goes to the store of its node; in a driver to the store of the newest open Executor or
    run; without any it stays in this process until it is given to a task.

    Args:
        value: the value.
        gpu: the number of a GPU of this node in whose memory it is to lie: a plain array of numbers in C order, however
            small. What torch or cupy have on a GPU is copied there through the host.

    Raises:
        UnpicklableError: it cannot travel.
        StoreFull: the store, or the GPU, has no room for it.
        TypeError, ValueError: it cannot lie on a GPU, or this node has no such GPU.
    """
    connection = _context.here.connection if _context.here is not None else _launch.newest()
    if gpu is not None:
        return Ref(_device.put(value, gpu, connection))
    return Ref(_bridgehead.keep_here(value) if connection is None else connection.put(value))


def put_many(values: Iterable[T]) -> list[Ref[T]]:
    """A reference for each value, as `put` gives them.

    Raises:
        UnpicklableError, StoreFull: as `put`; what was put before the one that failed is let go of.
    """
    return [put(value) for value in values]


@overload
def get(ref: Ref[Any], *, gpu: Literal[True]) -> DeviceArray: ...
@overload
def get(ref: Sequence[Ref[Any]], *, gpu: Literal[True]) -> list[DeviceArray]: ...
@overload
def get(ref: Ref[T], *, writable: bool = False, gpu: Literal[False] = False) -> T: ...
@overload
def get(ref: Sequence[Ref[T]], *, writable: bool = False, gpu: Literal[False] = False) -> list[T]: ...
def get(ref: Any, *, writable: bool = False, gpu: bool = False) -> Any:
    """The value of a reference, or the values of several, which are asked for together.

    Large arrays in it are read-only views of the store's memory. With `writable` they are this process's own: what it writes
    nobody else sees. A page is copied when it is first written; objects of less than 512 KiB are copied at once.

    With `gpu` an array is given in the memory of a GPU of this node: where it lies there, without a copy; else it is copied to
    the first GPU of the task that asks, or to GPU 0.

    Raises:
        ResultLost: the run in whose store it lay is over, or its node was lost.
        TypeError: with `gpu`: it is no plain array of numbers, or is to be writable.
        StoreFull: with `gpu`: that GPU has no room for a copy.
    """
    if gpu:
        if writable:
            raise TypeError("writable=True: what lies in a GPU's memory is for reading; copy it there")
        return _on_gpu(ref._kept) if isinstance(ref, Ref) else [_on_gpu(one._kept) for one in ref]
    if isinstance(ref, Ref):
        kept = ref._kept
        # What is on this node, by far the most, needs no list of what is on its way.
        return _values([kept], writable)[0] if kept.away() else kept.load(writable)
    return _values([one._kept for one in ref], writable)


def _values(kept: list[_bridgehead.Kept], writable: bool) -> list[Any]:
    """Those that lie elsewhere are on their way all at once before the first one is waited for."""
    coming = [connection_of(one).bring(one) if one.away() else None for one in kept]
    for future in coming:
        if future is not None:
            future._own = writable
    return [one.load(writable) if future is None else future.result() for one, future in zip(kept, coming, strict=True)]


def _on_gpu(kept: _bridgehead.Kept) -> DeviceArray:
    """In the memory of a GPU of this node, brought here first where it lies on another."""
    if kept.away():
        connection_of(kept).bring(kept).result()
    return _device.get(kept)


def load(kept: _bridgehead.Kept) -> Any:
    """The value of what was kept, brought to this node first where it lies on another."""
    return connection_of(kept).bring(kept).result() if kept.away() else kept.load()


def connection_of(kept: _bridgehead.Kept) -> _bridgehead.Client | _bridgehead.Worker:
    """The connection to the run in whose store it lies.

    Raises:
        ResultLost: that run is over, or was of another process.
    """
    if _context.here is not None:
        return _context.here.connection
    for client in _launch.open_clients():
        if client.owns(kept):
            return client
    raise errors.ResultLost("the run in whose store it lay is over")
