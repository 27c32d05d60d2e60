"""Arrays that are written in place in the store. Owns their way from `create` to a reference; the memory is the extension's."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _bridgehead, _context, _launch
from ._refs import Ref

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class Draft:
    """An array in the making, in the store of this node: see `create`.

    As a context it gives the array, and seals it at its end; where the block raises, the array is thrown away.
    """

    def __init__(self, array: Array, connection: Any, room: _bridgehead.Draft | None) -> None:
        self._array: Array | None = array
        self._connection = connection
        self._room = room
        self._ref: Ref[Any] | None = None

    @property
    def array(self) -> Array:
        """The array, to be filled. What was in its memory before is undefined.

        Raises:
            ValueError: it is sealed, or thrown away.
        """
        if self._array is None:
            raise ValueError(self._why("it can be had by bridgehead.get of its ref"))
        return self._array

    @property
    def ref(self) -> Ref[Any]:
        """The reference, once it is sealed.

        Raises:
            ValueError: it is not sealed yet, or was thrown away.
        """
        if self._ref is None:
            raise ValueError(
                self._why("") if self._array is None else "the array is not sealed yet: it has no reference"
            )
        return self._ref

    def seal(self) -> Ref[Any]:
        """The array is complete: its reference. Nothing is copied; from here on nobody may write it.

        The array that was given out can no longer be written to. Views that were made of it before can: what they are used
        for after this is an error that nobody tells.
        """
        if self._ref is None:
            array, self._array = self.array, None
            array.flags.writeable = False
            self._ref = Ref(self._sealed(array))
            self._room = None  # The arrays that show the memory keep it.
        return self._ref

    def _sealed(self, array: Array) -> _bridgehead.Kept:
        if self._connection is None:
            return _bridgehead.keep_here(array)
        kept: _bridgehead.Kept
        kept = self._connection.put(array) if self._room is None else self._connection.seal(self._room)
        return kept

    def _why(self, hint: str) -> str:
        if self._ref is None:
            return "the array was thrown away, since the block that filled it raised"
        return f"the array is sealed: {hint}"

    def __enter__(self) -> Array:
        return self.array

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.seal()
        elif self._ref is None:
            self._array = self._room = None

    def __repr__(self) -> str:
        if self._array is None:
            return f"<bridgehead.Draft {'thrown away' if self._ref is None else 'sealed'}>"
        return f"<bridgehead.Draft {self._array.shape} {self._array.dtype}>"


def create(shape: int | Sequence[int], dtype: Any = float) -> Draft:
    """Room for an array in the store of this node, to be filled in place: no copy is made, neither then nor when it is read.

    ::

        draft = bh.create((4096, 4096), np.float32)
        with draft as array:
            simulate(out=array)
        result = executor.submit(analyse, draft.ref)

    Where `put` would not use the store (small arrays, no open run) it is an array of this process, which is packed as
    `put` does.

    Raises:
        TypeError: arrays of this dtype hold Python objects, which have no place in shared memory.
        StoreFull: the store has no room for it.
    """
    import numpy as np

    like = np.empty(shape, dtype)  # Only its shape and type are looked at: no page of it is touched.
    if like.dtype.hasobject:
        raise TypeError(f"dtype {like.dtype}: it holds Python objects, which have to be pickled: use bridgehead.put")
    connection = _context.here.connection if _context.here is not None else _launch.newest()
    room = None if connection is None else connection.create(like)
    array: Array = like if room is None else np.ndarray(like.shape, like.dtype, buffer=memoryview(room))
    return Draft(array, connection, room)
