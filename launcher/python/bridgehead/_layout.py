"""How an array lies in its packed value (`docs/formats/value.md`), as far as the value's first bytes tell."""

from __future__ import annotations

import math
import pickle
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def like_array_of(head: memoryview) -> tuple[int, Array] | None:
    """Where the numbers of an array begin, and an array of its type, shape and order with numbers of no meaning; `None` where
    the value is no array by itself, or its numbers do not lie apart from its pickle. What is packed is no array of numpy's
    in every case: a pickle may make anything of the one buffer beside it.

    Args:
        head: the value's first bytes, enough for all but the numbers.
    """
    if len(head) < 16:
        return None
    return _of_pickle(head) if head[0] == 2 else _of_head(head) if head[0] == 3 else None


def _of_pickle(head: memoryview) -> tuple[int, Array] | None:
    import numpy as np

    count, length = struct.unpack_from("<IQ", head, 4)
    if count != 1 or 32 + length > len(head):
        return None
    offset, size = struct.unpack_from("<QQ", head, 16)
    # Bytes that are not here and are not read: numpy takes shape and type from the pickle.
    return offset, pickle.loads(head[32 : 32 + length], buffers=[np.empty(size, np.uint8)])


def _of_head(head: memoryview) -> tuple[int, Array] | None:
    import numpy as np

    kind, size, _, order, axes, offset = struct.unpack_from("<cBBBB2xQ", head, 1)
    if 16 + 8 * axes > len(head):
        return None
    shape = struct.unpack_from(f"<{axes}Q", head, 16)
    dtype = np.dtype(f"{kind.decode('ascii')}{size}")
    room = np.empty(max(1, math.prod(shape)) * size, np.uint8)
    return offset, np.ndarray(shape, dtype, room, order="F" if order else "C")
