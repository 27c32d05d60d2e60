"""Where the pickle and the buffer of a packed array lie (`docs/formats/value.md`)."""

from __future__ import annotations

import struct


def table_of(head: memoryview) -> tuple[tuple[int, int], memoryview] | None:
    """Offset and length of the only buffer of a framed value, and its pickle; `None` for other forms."""
    if len(head) < 32 or head[0] != 2:
        return None
    count, length = struct.unpack_from("<IQ", head, 4)
    if count != 1 or 32 + length > len(head):
        return None
    offset, size = struct.unpack_from("<QQ", head, 16)
    return (offset, size), head[32 : 32 + length]
