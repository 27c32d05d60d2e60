"""Values as bytes: packing, unpacking, and placeholders for what another task will have made.

A packed value is one kind byte and then, for kind 0, a pickle; for kind 1 a table of out-of-band buffers, the pickle, and
the buffers, each aligned to 64 bytes (``docs/formats/value.md``). Hot path: `pack_call`, `pack`, `unpack`, once a task each.
"""

from __future__ import annotations

import pickle
import struct
import threading
from typing import Any

from .errors import UnpicklableError

INLINE, STORED, PROGRAM, FILE, FAILURE, CANCELLED = range(6)

_HEAD = struct.Struct("<B7xQQ")  # kind, number of buffers, length of the pickle
_ENTRY = struct.Struct("<QQ")  # offset, length
_ALIGN = 64

_dumps = pickle.dumps
_loads = pickle.loads

_collector = threading.local()


class Placeholder:
    """Base of what stands for a value that another task makes. Pickling one notes it and writes its number instead."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        found: list[Placeholder] | None = getattr(_collector, "found", None)
        if found is None:
            raise TypeError(
                f"{type(self).__name__} stands for a value that does not exist yet; give it to a task as an argument "
                "or take its result first"
            )
        for index, other in enumerate(found):
            if other is self:
                return (_input, (index,))
        found.append(self)
        return (_input, (len(found) - 1,))


def _input(index: int) -> Any:
    """Called while arguments are unpickled: the value of a placeholder."""
    return _collector.inputs[index]


def dumps(obj: Any, buffers: list[pickle.PickleBuffer] | None = None) -> bytes:
    """Pickles with protocol 5; what lives in ``__main__`` or cannot be found by name goes by value."""
    callback = None if buffers is None else buffers.append
    try:
        data = _dumps(obj, 5, buffer_callback=callback)
        if b"__main__" not in data:
            return data
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        if isinstance(error, TypeError) and "stands for a value" in str(error):
            raise
    if buffers is not None:
        del buffers[:]
    found = getattr(_collector, "found", None)
    if found is not None:
        del found[:]
    import cloudpickle

    try:
        data = cloudpickle.dumps(obj, 5, buffer_callback=callback)
    except Exception as error:
        raise UnpicklableError(_explain(obj, error)) from error
    return bytes(data)


def _explain(obj: Any, error: Exception) -> str:
    path, culprit = _culprit(obj, type(obj).__name__, 0, set())
    return f"{path} is a {type(culprit).__name__}, which cannot be sent to another process ({error}): leave it out, or make it there"


def _sendable(obj: Any) -> bool:
    import cloudpickle

    try:
        cloudpickle.dumps(obj, 5)
    except Exception:  # noqa: BLE001 - any failure to pickle is the answer
        return False
    return True


def _culprit(obj: Any, path: str, depth: int, seen: set[int]) -> tuple[str, Any]:
    """The innermost part of ``obj`` that cannot be pickled, with its path."""
    if depth > 8 or id(obj) in seen:
        return path, obj
    seen.add(id(obj))
    for name, part in _parts(obj):
        if not _sendable(part):
            return _culprit(part, path + name, depth + 1, seen)
    return path, obj


def _parts(obj: Any) -> list[tuple[str, Any]]:
    if isinstance(obj, dict):
        return [(f"[{key!r}]", value) for key, value in obj.items()]
    if isinstance(obj, (list, tuple, set, frozenset)):
        return [(f"[{index}]", value) for index, value in enumerate(obj)]
    closure = getattr(obj, "__closure__", None)
    if closure:
        names = obj.__code__.co_freevars
        return [(f".<{name}>", cell.cell_contents) for name, cell in zip(names, closure, strict=False)]
    state = getattr(obj, "__dict__", None)
    return [(f".{name}", value) for name, value in state.items()] if isinstance(state, dict) else []


def pack(obj: Any) -> bytes | tuple[bytes, list[memoryview]]:
    """Packs a value: bytes, or where it has out-of-band buffers its head and the buffers to be laid behind it."""
    buffers: list[pickle.PickleBuffer] = []
    data = dumps(obj, buffers)
    if not buffers:
        return b"\0" + data
    return _head(data, buffers)


def _head(data: bytes, buffers: list[pickle.PickleBuffer]) -> bytes | tuple[bytes, list[memoryview]]:
    raws = [buffer.raw() for buffer in buffers]
    at = _HEAD.size + _ENTRY.size * len(raws) + len(data)
    head = bytearray(_HEAD.pack(1, len(raws), len(data)))
    for raw in raws:
        at = (at + _ALIGN - 1) // _ALIGN * _ALIGN
        head += _ENTRY.pack(at, raw.nbytes)
        at += raw.nbytes
    head += data
    return bytes(head), raws


def size(packed: bytes | tuple[bytes, list[memoryview]]) -> int:
    """How many bytes a packed value takes."""
    if isinstance(packed, bytes):
        return len(packed)
    head, raws = packed
    total = len(head)
    for raw in raws:
        total = (total + _ALIGN - 1) // _ALIGN * _ALIGN + raw.nbytes
    return total


def lay(packed: bytes | tuple[bytes, list[memoryview]], target: memoryview) -> None:
    """Writes a packed value into ``target``, which has `size` bytes."""
    if isinstance(packed, bytes):
        target[: len(packed)] = packed
        return
    head, raws = packed
    target[: len(head)] = head
    at = len(head)
    for raw in raws:
        at = (at + _ALIGN - 1) // _ALIGN * _ALIGN
        target[at : at + raw.nbytes] = raw
        at += raw.nbytes


def flat(packed: bytes | tuple[bytes, list[memoryview]]) -> bytes:
    """A packed value as one piece of bytes."""
    if isinstance(packed, bytes):
        return packed
    out = bytearray(size(packed))
    lay(packed, memoryview(out))
    return bytes(out)


def unpack(data: bytes | memoryview) -> Any:
    """The value. Arrays are read-only views into ``data``, which they keep alive."""
    view = memoryview(data)
    if view[0] == 0:
        return _loads(view[1:])
    if view[0] != 1:
        raise ValueError(f"this value was packed in form {view[0]}, this version reads 0 and 1")
    _, count, length = _HEAD.unpack_from(view)
    at = _HEAD.size
    entries = [_ENTRY.unpack_from(view, at + i * _ENTRY.size) for i in range(count)]
    at += count * _ENTRY.size
    readonly = view.toreadonly()
    buffers = [readonly[offset : offset + n] for offset, n in entries]
    return _loads(view[at : at + length], buffers=buffers)


def pack_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, list[Placeholder]]:
    """Packs arguments; placeholders in them are returned in the order of their numbers."""
    found: list[Placeholder] = []
    _collector.found = found
    try:
        return pack([args, kwargs] if kwargs else args), found
    finally:
        _collector.found = None


def unpack_call(data: bytes | memoryview, inputs: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a call, with the values of their placeholders put in."""
    _collector.inputs = inputs
    try:
        call = unpack(data)
    finally:
        _collector.inputs = ()
    return (call, {}) if type(call) is tuple else (call[0], call[1])


def load_inputs(place: Any, values: list[tuple[int, Any]]) -> list[Any]:
    """The values of a call's placeholders; ``place`` has the run folder."""
    from pathlib import Path

    from ._session import load_value

    run_dir = Path(place.run_dir)
    return [unpack(payload) if kind == INLINE else load_value(run_dir, kind, payload) for kind, payload in values]
