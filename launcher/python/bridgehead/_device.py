"""Arrays in the memory of a GPU: what may lie there, and how other libraries take it without a copy. Owns what an array's
bytes mean; the memory is the store's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NoReturn

from . import _bridgehead, _context, _layout, errors

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_KINDS = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
"""Kinds of numbers, as numpy and DLPack name them."""


class DeviceArray:
    """An array that lies in the memory of a GPU of this node, for reading.

    It is taken without a copy by what knows the GPU: through DLPack (``torch.from_dlpack(array)``,
    ``cupy.from_dlpack(array)``) or through ``__cuda_array_interface__``. Where host memory stands in for the GPU's,
    ``stand_in`` is true, and numpy takes it in the same way.

    The bytes stay where they are for as long as this, or what was made of it without a copy, lives. They are a value of the
    run and must not be written: DLPack before 1.0 has no way to say so to who takes it.

    Attributes:
        shape: its shape.
        dtype: its type, as numpy names it.
        gpu: the number of the GPU on its node.
        stand_in: whether it lies in host memory that stands in for the GPU's.
    """

    __slots__ = ("__weakref__", "_buffer", "_offset", "dtype", "gpu", "shape", "stand_in")

    def __init__(self, buffer: _bridgehead.DeviceBuffer) -> None:
        self._offset, self.shape, self.dtype = _described(memoryview(buffer.head()))
        self._buffer = buffer
        self.gpu: int = buffer.gpu
        self.stand_in: bool = buffer.stand_in

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return self.size * self.dtype.itemsize

    def to_host(self) -> Array:
        """A copy in host memory, this process's own."""
        import numpy as np

        return np.frombuffer(self._buffer.read(self._offset, self.nbytes), self.dtype).reshape(self.shape)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("an array of no axes has no length")
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("an array in a GPU's memory becomes one of the host by a copy")
        import numpy as np

        return np.asarray(self.to_host(), dtype)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self.stand_in:
            raise AttributeError("this array lies in host memory, which stands in for the GPU's")
        # All copies to the GPU are complete: there is no stream to wait for.
        return {**self._interface(), "stream": None}

    @property
    def __array_interface__(self) -> dict[str, Any]:
        if not self.stand_in:
            raise AttributeError("this array lies in a GPU's memory: to_host() copies it")
        return self._interface()

    def _interface(self) -> dict[str, Any]:
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._buffer.address(self._offset, self.nbytes) if self.size else 0, True),
            "strides": None,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._buffer.device

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule of it, without a copy. `stream` needs no wait: the bytes are complete.

        Raises:
            BufferError: a copy is asked for, or another device.
        """
        if copy or (dl_device is not None and tuple(dl_device) != self._buffer.device):
            raise BufferError("it is given where it lies, without a copy: to_host() copies it to the host")
        kind = (_KINDS[self.dtype.kind], 8 * self.dtype.itemsize)
        versioned = max_version is not None and max_version[0] >= 1
        return self._buffer.dlpack(self._offset, list(self.shape), kind, versioned)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a DeviceArray is this process's look at a GPU's memory: give the reference to a task instead")

    def __repr__(self) -> str:
        where = f"host memory standing in for GPU {self.gpu}" if self.stand_in else f"the memory of GPU {self.gpu}"
        return f"<bridgehead.DeviceArray {self.shape} {self.dtype} in {where}>"


def _described(head: memoryview) -> tuple[int, tuple[int, ...], np.dtype[Any]]:
    """Where the array in a packed value begins, its shape and its type, from the value's first bytes.

    Raises:
        TypeError: the value is no plain array of numbers.
    """
    found = _layout.like_array_of(head)
    if found is None:
        raise TypeError("the value is no plain array of numbers, as all are that lie on a GPU: get it on the host")
    offset, value = found
    check(value)
    return offset, value.shape, value.dtype


def check(value: Any) -> None:
    """Refuses what cannot lie on a GPU.

    Raises:
        TypeError: it is no plain array of numbers in C order.
    """
    import numpy as np

    advice = "only plain numpy arrays of numbers, in C order, can lie on a GPU"
    if type(value) is not np.ndarray:
        raise TypeError(f"{advice}: this is a {type(value).__module__}.{type(value).__qualname__}")
    if value.dtype.kind not in _KINDS or not value.dtype.isnative:
        raise TypeError(f"{advice}: its dtype is {value.dtype}")
    if not value.flags.c_contiguous:
        raise TypeError(f"{advice}: give numpy.ascontiguousarray(array)")


def put(value: Any, gpu: int, connection: _bridgehead.Client | _bridgehead.Worker | None) -> _bridgehead.Kept:
    """Puts an array into the memory of a GPU of the node where this process is.

    Raises:
        TypeError: it is no plain array of numbers in C order.
        ValueError: the node has no such GPU, or no run is open that has one.
        StoreFull: there is no room for it, in host memory or on the GPU.
    """
    if isinstance(gpu, bool) or not isinstance(gpu, int) or not 0 <= gpu < 2**32 - 1:
        raise ValueError(f"gpu={gpu!r}: give the number of a GPU, 0 or more")
    array = _on_host(value)
    check(array)
    if connection is None:
        raise ValueError(f"gpu={gpu}: no Executor or run is open, whose store would hold it there")
    return place(connection, [connection.put_array(array)], 0, [], 1, gpu + 1)[0]


def place(
    connection: _bridgehead.Client | _bridgehead.Worker,
    kept: list[_bridgehead.Kept],
    placing: int,
    near: list[int],
    replicas: int,
    gpu: int = 0,
) -> list[_bridgehead.Kept]:
    """Moves what was put to where it is to lie; `gpu` is 1 + the number of a GPU, or 0.

    Raises:
        ValueError: there is no such place.
        StoreFull: a GPU has no room.
    """
    for one in kept:
        one.settle()  # What a process still looks at does not leave host memory.
    try:
        return connection.place(kept, placing, near, replicas, gpu).result()
    except errors.BridgeheadError as error:
        if str(error).startswith(("replicas=", "place=", "gpu=")):
            raise ValueError(str(error)) from None
        if "cannot lie in the memory of GPU" in str(error):
            raise errors.StoreFull(str(error)) from None
        raise


def _on_host(value: Any) -> Any:
    """What lies on a GPU for another library, as an array of the host: it is copied through the host."""
    library = type(value).__module__.partition(".")[0]
    if library == "torch":
        return value.detach().cpu().numpy()
    if library == "cupy":
        return value.get()
    return value.to_host() if isinstance(value, DeviceArray) else value


def get(kept: _bridgehead.Kept) -> DeviceArray:
    """What was put, in the memory of a GPU of this node: where it lies, or copied to the task's first GPU.

    Raises:
        TypeError: it is no plain array of numbers, or in no store.
        StoreFull: the GPU has no room for a copy.
    """
    running = _context.here.connection.current() if _context.here is not None else None
    devices = running[3] if running is not None else []
    if kept.node() is None:
        raise TypeError("the value is in no store: put it with gpu=, while an Executor or a run is open")
    view = kept.view() if kept.gpu() is None and not kept.away() else None
    if view is not None:  # What cannot lie there is not copied there.
        _described(view)
        view.release()
    return DeviceArray(kept.device(devices[0] if devices else 0))
