"""One rank of an MPI function, in its process. Owns the start of MPI, and how what ranks return becomes one array. The process is a
worker of its own, which ends with the gang."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from . import _bridgehead, _context, errors

if TYPE_CHECKING:
    from . import _shards


def run(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], gang: tuple[int, int, bool, bool]
) -> tuple[Any, _bridgehead.Kept | None]:
    """Runs the function as rank `gang[0]` of `gang[1]`: the task's value where this is the first rank, and this rank's shard of
    it where ranks return shards."""
    rank, size, mpi, shards = gang
    comm = _communicator(rank, size) if mpi else None
    result = function(comm, *args, **kwargs)
    if shards:
        return _joined(comm, result)
    return (result if rank == 0 else None), None


def _communicator(rank: int, size: int) -> Any:
    """All ranks.

    Raises:
        TaskError: MPI came up without the others, so that each rank would do all of the work.
    """
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    if comm.Get_size() != size or comm.Get_rank() != rank:
        library = MPI.Get_library_version().splitlines()[0].strip("\0 ")
        raise errors.TaskError(
            f"MPI came up as rank {comm.Get_rank()} of {comm.Get_size()} in what is rank {rank} of {size}: {library} does not "
            'take the start-up that it was given; say mpi="mpich" or mpi="openmpi"',
            kind="singleton",
        )
    return comm


class _Named:
    """An object that another rank holds until the array has its own hold."""

    def __init__(self, fields: tuple[Any, ...]) -> None:
        self._fields = fields

    def __reduce__(self) -> tuple[Any, ...]:
        if not _bridgehead.note_object(self._fields):
            raise TypeError("an array of ranks' shards is a gang's value, and nothing else before that")
        return (_bridgehead.adopt, self._fields)


def _joined(comm: Any, part: Any) -> tuple[_shards.ShardedArray | None, _bridgehead.Kept]:
    """Puts this rank's part into its node's store; the first rank makes the array of all, whose bytes stay where they are."""
    import numpy as np

    from . import _shards

    assert _context.here is not None
    values = np.asarray(part)
    if values.ndim == 0 or values.dtype.hasobject:
        raise TypeError("with returns='shards' each rank returns an array of one axis or more and of plain numbers")
    values = np.ascontiguousarray(values)
    kept = _context.here.connection.put_array(values)
    mine = (kept.fields(), values.shape, values.dtype, _shards._data_in(kept.view(), values.dtype))
    every = comm.gather(mine, root=0)
    if every is None:
        return None, kept
    shards = [_shards._Shard(_Named(fields), shape, dtype, data) for fields, shape, dtype, data in every]
    return _shards._joined(shards, 0), kept
