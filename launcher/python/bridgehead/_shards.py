"""Arrays that lie in parts in the stores of a run. Owns how parts make up an array, which bytes of which part a slice needs,
and who places them; the bytes are moved by the stores."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from . import _bridgehead, _context, _device, _launch, _layout, _refs, errors
from ._future import Future
from ._refs import Ref

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
    Place = Literal["pack", "spread", "by_rank", "by_gpu", "by_numa"]

_PLACES = {"pack": 0, "spread": 1, "by_rank": 2, "by_gpu": 3, "by_numa": 5}
_NEAR = 4
_PART = 64 << 20
"""Bytes of a part where ``parts="auto"``."""
_HEAD = 64 << 10
"""Bytes of an object that are looked at to learn how its array lies in it."""


@dataclasses.dataclass(frozen=True)
class Near:
    """A place: where the parts of something else lie. See `near`."""

    nodes: tuple[int, ...]


def near(other: ShardedArray | Ref[Any]) -> Near:
    """The nodes on which another array's parts, or a value that was put, lie: to be given as `place=`."""
    nodes = other.placement if isinstance(other, ShardedArray) else [other._kept.node()]
    return Near(tuple(0 if node is None else node for node in nodes))


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a sharded array.

    Attributes:
        start: its first index along the array's axis.
        stop: the index behind its last one.
        nbytes: bytes of its values.
        node: the node that it lies on; `None` where it is so small that it travels with the array.
        numa: the NUMA node of that node in whose memory it was placed; `None` where none was asked for, or there is only one.
        gpu: the number of that node's GPU in whose memory it was placed; `None` where it was not.
    """

    start: int
    stop: int
    nbytes: int
    node: int | None
    numa: int | None = None
    gpu: int | None = None


@dataclasses.dataclass(frozen=True)
class _Shard:
    """A part: its value, or where that is."""

    source: Any
    """A `Kept`, an array, or a node of a pipeline."""
    shape: tuple[int, ...]
    dtype: Any
    data: int | None
    """Where the array's bytes begin in the object, in C order; `None` where only all of it can be read."""

    def rows(self, start: int, stop: int) -> Array:
        """Its rows (indices of its first axis) from `start` up to `stop`."""
        if not isinstance(self.source, _bridgehead.Kept):
            array: Array = self.source
            return array[start:stop]
        if start == 0 and stop == self.shape[0]:
            return self._whole()
        if self.data is None or not self.source.away():
            return self._whole()[start:stop]
        return self._part(start, stop, self.data)

    def _whole(self) -> Array:
        array: Array = _refs.load(self.source)
        return array

    def _part(self, start: int, stop: int, data: int) -> Array:
        import numpy as np

        row = self.dtype.itemsize * math.prod(self.shape[1:])
        offset, length = data + start * row, (stop - start) * row
        if length == 0:
            return np.empty((stop - start, *self.shape[1:]), self.dtype)
        got = _refs.connection_of(self.source).bring(self.source, offset, length).result()
        if not isinstance(got, memoryview):  # It came from the run folder, whole.
            array: Array = got
            return array[start:stop]
        if got.nbytes != length:  # The whole object is on this node already.
            got = got[offset : offset + length]
        return np.frombuffer(got, self.dtype).reshape(stop - start, *self.shape[1:])


class _Handle:
    """A part's object on its way to another process: arrives there as a reference, or as the value."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __reduce__(self) -> tuple[Any, ...]:
        from ._pipeline import Node, Pipeline

        source = self._source
        if isinstance(source, Node):
            return source.__reduce__()
        if not isinstance(source, _bridgehead.Kept):
            return (_itself, (source,))
        packed = source.packed()
        if packed is not None:
            return (_bridgehead.keep_packed, (packed,))
        owner = _bridgehead.packing_owner()
        noted = None if isinstance(owner, Pipeline) else _bridgehead.note_reference(source)
        if noted is None and owner is not None:  # It goes to another run than its own, as what it is.
            return (_itself, (_refs.load(source),))
        if noted is None:
            raise TypeError(
                "a ShardedArray travels to tasks of its own run, in their results and under names: "
                "gather() it to take it elsewhere"
            )
        return (_bridgehead._input, (noted,)) if isinstance(noted, int) else (_bridgehead.adopt, noted)


def _itself(value: Any) -> Any:
    return value


class ShardedArray:
    """An array whose parts lie in the stores of a run, along one axis.

    A task that takes it gets it as it is: nothing is moved before it is read. ``array[10:20]`` moves those rows only, from
    the nodes that have them; `shards` are references, one a part, and a task that takes one runs where that lies.
    """

    def __init__(self, shards: Sequence[_Shard], axis: int) -> None:
        self._shards = tuple(shards)
        self.axis = axis

    @classmethod
    def from_parts(cls, parts: Iterable[Any], axis: int = 0) -> ShardedArray:
        """An array of parts that exist, in their order: references, futures of tasks (which are waited for), arrays, or, for
        a task of the same pipeline only, nodes.

        Raises:
            ValueError: there is none, or their shapes do not make up an array.
            TypeError: a part is no array.
        """
        found = list(parts)
        if not found:
            raise ValueError("an array is made of one part or more: none was given")
        from ._pipeline import Node

        if any(isinstance(part, Node) for part in found):
            return cls([_Shard(part, (), None, None) for part in found], axis)
        return _joined([_found(number, part) for number, part in enumerate(found)], axis)

    def _known(self) -> tuple[_Shard, ...]:
        if any(shard.dtype is None for shard in self._shards):
            raise RuntimeError(
                "its parts are results of tasks that have not run: give it to a task of the same pipeline"
            )
        return self._shards

    @property
    def shape(self) -> tuple[int, ...]:
        """As of the whole array."""
        first = self._known()[0].shape
        length = sum(shard.shape[self.axis] for shard in self._shards)
        return (*first[: self.axis], length, *first[self.axis + 1 :])

    @property
    def dtype(self) -> np.dtype[Any]:
        """As of the whole array."""
        dtype: np.dtype[Any] = self._known()[0].dtype
        return dtype

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self._known()[0].shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return int(self.dtype.itemsize) * math.prod(self.shape)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Where its parts begin and end along its axis, and the node of each."""
        found, start = [], 0
        for shard in self._known():
            stop = start + shard.shape[self.axis]
            nbytes = shard.dtype.itemsize * math.prod(shard.shape)
            kept = shard.source if isinstance(shard.source, _bridgehead.Kept) else None
            node, numa, gpu = (kept.node(), kept.numa(), kept.gpu()) if kept is not None else (None, None, None)
            found.append(Part(start, stop, nbytes, node, numa, gpu))
            start = stop
        return tuple(found)

    def part(self, number: int) -> ShardedArray:
        """One of its parts alone: a task that takes it gets it as it is, without any of its bytes.

        Raises:
            IndexError: it has not so many.
        """
        return ShardedArray([self._shards[number]], self.axis)

    @property
    def placement(self) -> list[int | None]:
        """The node of each part."""
        return [part.node for part in self.parts]

    @property
    def shards(self) -> tuple[Ref[Any], ...]:
        """A reference for each part: ``map(task, array.shards)`` runs each call where its part lies."""
        return tuple(Ref(_kept(shard.source)) for shard in self._known())

    def gather(self) -> Array:
        """The whole array, in this process."""
        whole: Array = self[...]
        return whole

    def reshard(
        self,
        parts: int | Literal["auto"] | None = None,
        axis: int | None = None,
        *,
        place: Place | Near = "spread",
        replicas: int = 1,
    ) -> ShardedArray:
        """The same values in other parts, or along another axis. Each new part is put together in this process, so no more
        than one of them is here at a time.

        Raises:
            ValueError: as `shard`.
        """
        axis = _axis(self.axis if axis is None else axis, self.shape)
        bounds = _bounds(self.shape, self.nbytes, axis, len(self._shards) if parts is None else parts)
        return _put(lambda start, stop: self[_along(axis, start, stop)], bounds, axis, place, replicas)

    def __getitem__(self, key: Any) -> Any:
        """A slice, as numpy gives it: the bytes that it needs are moved, and no others. Other than basic indices take the
        whole array."""
        shape = self.shape
        basic = _basic(key, shape)
        if basic is None:
            return self.gather()[key]
        ranges, after = basic
        return self._select(ranges)[after]

    def _select(self, ranges: Sequence[range]) -> Array:
        """The values at these indices of each axis, which all go upwards."""
        import numpy as np

        pieces, start, wanted = [], 0, ranges[self.axis]
        for number, shard in enumerate(self._known()):
            stop = start + shard.shape[self.axis]
            inside = _inside(wanted, start, stop)
            if inside:
                local = [*ranges[: self.axis], inside, *ranges[self.axis + 1 :]]
                pieces.append(self._read(number, shard, local, (start, stop)))
            start = stop
        if not pieces or math.prod(len(r) for r in ranges) == 0:
            return np.empty([len(r) for r in ranges], self.dtype)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, self.axis)

    def _read(self, number: int, shard: _Shard, ranges: Sequence[range], bounds: tuple[int, int]) -> Array:
        first, last = ranges[0][0] if ranges[0] else 0, ranges[0][-1] + 1 if ranges[0] else 0
        try:
            rows = shard.rows(first, last)
        except errors.ResultLost as error:
            which = f"shard {number} of {len(self._shards)} ({bounds[0]} to {bounds[1]} of axis {self.axis})"
            raise errors.ResultLost(f"{which} is lost: {error}") from None
        lead = slice(0, last - first, ranges[0].step)
        return rows[(lead, *(slice(r.start, r.stop, r.step) for r in ranges[1:]))]

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        import numpy as np

        if copy is False:
            raise ValueError("a ShardedArray becomes an array by gathering its parts, which copies them")
        return np.asarray(self.gather(), dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        made = [(_Handle(shard.source), shard.shape, shard.dtype, shard.data) for shard in self._shards]
        return (_restored, (made, self.axis))

    def __repr__(self) -> str:
        if any(shard.dtype is None for shard in self._shards):
            return f"<bridgehead.ShardedArray of {len(self._shards)} parts to come, axis {self.axis}>"
        return f"<bridgehead.ShardedArray {self.shape} {self.dtype}, {len(self._shards)} parts of axis {self.axis}>"


def shard(
    array: Any,
    axis: int = 0,
    parts: int | Literal["auto"] | None = None,
    *,
    place: Place | Near = "spread",
    replicas: int = 1,
) -> ShardedArray:
    """Puts an array into the stores of a run, in parts along an axis.

    In a driver the run is the newest one that is open, inside a task its own; without any the parts stay in this process until
    they are given to a task.

    Args:
        array: the array; it is copied, so later changes do not show. One of dtype object is pickled part by part, and
            of its parts only the whole can be read.
        axis: the axis.
        parts: how many, as equal as they can be; ``"auto"`` is parts of 64 MiB, and at least one a node; `None` is one a
            node in a driver, and ``"auto"`` inside a task.
        place: ``"spread"``: in turn on all nodes; ``"by_rank"``: neighbours together, as ranks are given to nodes;
            ``"by_numa"``: neighbours together on nodes, and there in turn in the memory of the NUMA nodes (the nearest that has
            room); ``"by_gpu"``: in the memory of the run's GPUs in turn, numbers only;
            ``"pack"``: all on this node; `near`: where something else lies.
        replicas: how many nodes have each part; a part whose node is lost is read from another.

    Raises:
        ValueError: there is no such axis, there are more parts than indices, or the place or the replicas cannot be had.
        StoreFull: there is no room.
    """
    import numpy as np

    whole = np.asarray(array)
    if whole.ndim == 0:
        raise ValueError("an array of no axes has no parts: put it with bridgehead.put")
    axis = _axis(axis, whole.shape)
    bounds = _bounds(whole.shape, whole.nbytes, axis, parts)
    return _put(lambda start, stop: whole[_along(axis, start, stop)], bounds, axis, place, replicas)


def _put(
    block: Callable[[int, int], Array],
    bounds: Sequence[tuple[int, int]],
    axis: int,
    place: Place | Near,
    replicas: int,
) -> ShardedArray:
    import numpy as np

    code = _place_code(place)
    if replicas < 1:
        raise ValueError(f"replicas={replicas}: give 1 or more")
    connection = _connection()
    shards = []
    for start, stop in bounds:
        values = np.ascontiguousarray(block(start, stop))
        if place == "by_gpu":
            _device.check(values)
        if connection is None:
            kept = _bridgehead.keep_here(values)
        else:
            kept = connection.put_array(values) if place == "by_gpu" else connection.put(values)
        shards.append(_Shard(kept, values.shape, values.dtype, _data_in(kept.view(), values.dtype)))
    if connection is not None and (code or replicas > 1):
        shards = _placed(connection, shards, code, place, replicas)
    return ShardedArray(shards, axis)


def _placed(
    connection: _bridgehead.Client | _bridgehead.Worker,
    shards: list[_Shard],
    code: int,
    place: Place | Near,
    replicas: int,
) -> list[_Shard]:
    stored = [number for number, shard in enumerate(shards) if shard.source.node() is not None]
    if not stored:
        return shards
    nodes = place.nodes if isinstance(place, Near) else ()
    wanted = [nodes[number * len(nodes) // len(shards)] for number in stored] if nodes else []
    moved = _device.place(connection, [shards[number].source for number in stored], code, wanted, replicas)
    for number, kept in zip(stored, moved, strict=True):
        shards[number] = dataclasses.replace(shards[number], source=kept)
    return shards


def _connection() -> _bridgehead.Client | _bridgehead.Worker | None:
    return _context.here.connection if _context.here is not None else _launch.newest()


def _place_code(place: Any) -> int:
    if isinstance(place, Near):
        return _NEAR
    if place not in _PLACES:
        raise ValueError(f"place={place!r}: give one of {', '.join(map(repr, _PLACES))}, or bridgehead.near(other)")
    return _PLACES[place]


def _axis(axis: int, shape: tuple[int, ...]) -> int:
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis {axis}: the array has {len(shape)} axes, 0 to {len(shape) - 1}")
    return axis % len(shape)


def _bounds(shape: tuple[int, ...], nbytes: int, axis: int, parts: Any) -> list[tuple[int, int]]:
    """Where each part begins and ends."""
    length, nodes = shape[axis], _nodes()
    if parts is None and nodes is not None:
        count = max(1, min(nodes, length))
    elif parts is None or parts == "auto":
        least = -(-nbytes // _PART)
        count = max(1, min(-(-max(least, 1) // (nodes or 1)) * (nodes or 1), length))
    elif isinstance(parts, int) and not isinstance(parts, bool):
        count = parts
    else:
        raise ValueError(f"parts={parts!r}: give a number, 'auto', or None")
    if count < 1 or count > max(length, 1):
        raise ValueError(f"parts={count}: axis {axis} has {length} indices; give 1 to {max(length, 1)}")
    return [(number * length // count, (number + 1) * length // count) for number in range(count)]


def _nodes() -> int | None:
    if _context.here is not None:
        return None
    client = _launch.newest()
    return None if client is None else client.facts()[1]


def _along(axis: int, start: int, stop: int) -> tuple[slice, ...]:
    return (slice(None),) * axis + (slice(start, stop),)


def _inside(wanted: range, start: int, stop: int) -> range:
    """The wanted indices from `start` up to `stop`, counted from `start`."""
    step = wanted.step
    skipped = max(0, -(-(start - wanted.start) // step))
    first = wanted.start + skipped * step
    return range(first - start, max(first, min(wanted.stop, stop)) - start, step)


def _basic(key: Any, shape: tuple[int, ...]) -> tuple[list[range], tuple[Any, ...]] | None:
    """A basic index as the indices of each axis, upwards, and what is left to do with what they give; `None` for other
    kinds."""
    keys = list(key) if isinstance(key, tuple) else [key]
    if sum(part is Ellipsis for part in keys) > 1 or any(_is_index(part) is None for part in keys):
        return None
    at = next((number for number, part in enumerate(keys) if part is Ellipsis), len(keys))
    given = len(keys) - (at < len(keys))
    if given > len(shape):
        raise IndexError(f"too many indices: the array has {len(shape)} axes, but {given} were given")
    keys[at : at + 1] = [slice(None)] * (len(shape) - given)
    ranges: list[range] = []
    after: list[slice | int] = []
    for axis, (part, length) in enumerate(zip(keys, shape, strict=True)):
        if isinstance(part, slice):
            indices = range(*part.indices(length))
            after.append(slice(None) if indices.step > 0 else slice(None, None, -1))
            ranges.append(indices if indices.step > 0 else indices[::-1])
            continue
        index = int(part.__index__())
        if not -length <= index < length:
            raise IndexError(f"index {index} is out of range: axis {axis} has {length} indices")
        ranges.append(range(index % length, index % length + 1))
        after.append(0)
    return ranges, tuple(after)


def _is_index(part: Any) -> bool | None:
    if isinstance(part, slice) or part is Ellipsis:
        return True
    integer = hasattr(part, "__index__") and not isinstance(part, bool) and not getattr(part, "ndim", 0)
    return True if integer else None


def _kept(source: Any) -> _bridgehead.Kept:
    if isinstance(source, _bridgehead.Kept):
        return source
    connection = _connection()
    return _bridgehead.keep_here(source) if connection is None else connection.put(source)


def _restored(made: list[tuple[Any, tuple[int, ...], Any, int | None]], axis: int) -> ShardedArray:
    if any(dtype is None for _, _, dtype, _ in made):  # Parts that were to come are here, as values.
        return ShardedArray.from_parts([source for source, *_ in made], axis)
    return ShardedArray([_Shard(*shard) for shard in made], axis)


def _joined(shards: list[_Shard], axis: int) -> ShardedArray:
    """The array that parts make up, if they do."""
    first = shards[0]
    axis = _axis(axis, first.shape)
    for number, shard in enumerate(shards):
        same = shard.shape[:axis] + shard.shape[axis + 1 :] == first.shape[:axis] + first.shape[axis + 1 :]
        if len(shard.shape) != len(first.shape) or not same or shard.dtype != first.dtype:
            raise ValueError(
                f"part {number} is {shard.shape} {shard.dtype}, which does not go with the first one, "
                f"{first.shape} {first.dtype}, along axis {axis}"
            )
    return ShardedArray(shards, axis)


def _found(number: int, part: Any) -> _Shard:
    """What a part is, without bringing its bytes here where they lie elsewhere."""
    source: Any = part
    if isinstance(part, Ref):
        source = part._kept
    elif isinstance(part, Future):
        source = _of_future(part)
    if isinstance(source, _bridgehead.Kept) and source.away():
        return _look(number, source)
    value = source.load() if isinstance(source, _bridgehead.Kept) else source
    view = source.view() if isinstance(source, _bridgehead.Kept) else None
    return _described(number, source, value, _data_in(view, getattr(value, "dtype", None)))


def _of_future(future: Future[Any]) -> Any:
    concurrent.futures.wait([future])
    raw = future._raw
    reference = None if raw is None or raw.kind != "value" else raw.reference()
    return future.result() if reference is None else reference


def _described(number: int, source: Any, value: Any, data: int | None) -> _Shard:
    import numpy as np

    if not isinstance(value, np.ndarray) or value.ndim == 0:
        raise TypeError(f"part {number} is a {type(value).__name__}, not an array with axes")
    in_order = value.flags.c_contiguous and value.dtype.hasobject is False
    return _Shard(source, value.shape, value.dtype, data if in_order else None)


def _look(number: int, kept: _bridgehead.Kept) -> _Shard:
    """What lies in an object of another node, from its first bytes (`docs/formats/value.md`)."""
    size = kept.nbytes()
    if size > 2 * _HEAD:
        head = _refs.connection_of(kept).bring(kept, 0, _HEAD).result()
        found = _layout.like_array_of(head)
        if found is not None:
            offset, value = found
            return _described(number, kept, value, offset)
    return _described(number, kept, _refs.load(kept), None)


def _data_in(view: memoryview | None, dtype: Any) -> int | None:
    """Where an array's bytes begin in its packed value."""
    if view is None or dtype is None or dtype.hasobject:
        return None
    found = _layout.like_array_of(view)
    return None if found is None else found[0]
