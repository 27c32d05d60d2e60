"""Unpickles values whose arrays are the process's own, also where what was pickled was read-only."""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Sequence
from typing import Any

from . import _bridgehead

_NUMPY = ("numpy._core.numeric", "numpy.core.numeric")
"""Where numpy keeps the function that makes an array of a pickled buffer."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        found = super().find_class(module, name)
        if name == "_frombuffer" and module in _NUMPY:
            return functools.partial(_from_buffer, found)
        return found


def _from_buffer(make: Any, buffer: Any, *shape: Any) -> Any:
    """An array that was read-only when it was pickled gets its buffer as a read-only view of an `OwnBuffer`, or, if it is
    small, as bytes."""
    if isinstance(buffer, memoryview) and isinstance(buffer.obj, _bridgehead.OwnBuffer):
        buffer = buffer.obj
    array = make(buffer, *shape)
    return array if array.flags.writeable else array.copy(order="K")


def loads(data: bytes, buffers: Sequence[_bridgehead.OwnBuffer]) -> Any:
    """The value in a pickle and its buffers."""
    return _Unpickler(io.BytesIO(data), buffers=buffers).load()
