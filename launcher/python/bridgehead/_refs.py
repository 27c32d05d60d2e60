"""References: a value packed once, given to many tasks."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from . import _bridgehead

T = TypeVar("T")


class Ref(Generic[T]):
    """Stands for a value that was `put`. Given to a task as an argument, it arrives there as the value."""

    __slots__ = ("__weakref__", "_packed")

    def __init__(self, packed: bytes) -> None:
        self._packed = packed

    def __reduce__(self) -> tuple[Any, ...]:
        number = _bridgehead.note_value(self._packed)
        if number is None:
            raise TypeError("a Ref can only be an argument of a task: return the value itself, or `bridgehead.get` it")
        return (_bridgehead._input, (number,))

    def __repr__(self) -> str:
        return f"<bridgehead.Ref {len(self._packed):,} bytes>"


def put(value: T) -> Ref[T]:
    """Packs a value, once, for as many tasks as take it.

    Raises:
        UnpicklableError: it cannot travel.
    """
    return Ref(_bridgehead.pack_bytes(value))


def get(ref: Ref[T]) -> T:
    """The value of a reference. Large arrays in it are read-only views that share the reference's memory."""
    value: T = _bridgehead.unpack_bytes(ref._packed)
    return value
