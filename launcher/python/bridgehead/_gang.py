"""MPI functions: tasks that run on every rank of a gang, with a communicator. Owns the decorator; what happens on a rank is
`_ranks.py`'s."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, Unpack, overload

from ._shards import ShardedArray
from ._task import GangOptions, Options, Returns, Task, make_options

P = ParamSpec("P")
R = TypeVar("R")


class MpiTask(Task[P, R], Generic[P, R]):
    """A function that every rank of a gang runs; its first argument is the communicator, which nodes leave out. Calling it
    runs it here and now, in this process, with the communicator that is given."""

    def __init__(self, function: Callable[..., Any], options: Options) -> None:
        super().__init__(function, options)

    def __call__(self, comm: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:  # type: ignore[override] # pyright: ignore[reportIncompatibleMethodOverride]
        function: Callable[..., Any] = self.function
        return function(comm, *args, **kwargs)

    @property
    def _called(self) -> Callable[P, R]:
        function: Callable[..., Any] = self.function
        return functools.partial(function, None)

    def options(self, **changes: Any) -> MpiTask[P, R]:
        """The same task, asking for something else. See `Options` for what can be asked."""
        return MpiTask(self.function, make_options(self.task_options, changes))

    def __repr__(self) -> str:
        return f"<bridgehead.MpiTask {getattr(self.function, '__qualname__', self.function)!s}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (MpiTask, (self.function, self.task_options))


@overload
def mpi(
    *, ranks: int | str, returns: Literal["first"] = ..., **options: Unpack[GangOptions]
) -> Callable[[Callable[Concatenate[Any, P], R]], MpiTask[P, R]]: ...
@overload
def mpi(
    *, ranks: int | str, returns: Literal["shards"], **options: Unpack[GangOptions]
) -> Callable[[Callable[Concatenate[Any, P], Any]], MpiTask[P, ShardedArray]]: ...
def mpi(*, ranks: int | str, returns: Returns = "first", **changes: Any) -> Any:
    """Makes a function one that every rank of an MPI gang runs: ``@bh.mpi(ranks=8)``.

    The function's first parameter is the communicator of all ranks, mpi4py's ``COMM_WORLD``; nodes give the other arguments, which
    all ranks get. The agents start the ranks: no mpirun is involved. The node's value is what the first rank returns, or, with
    ``returns="shards"``, a `ShardedArray` of what all ranks return, along the first axis and without gathering it.

    Args:
        ranks: how many, or a text like ``"4..16"``: as many as are free when it starts.
        returns: ``"first"`` or ``"shards"``.
        changes: `Options`; what they ask for each rank gets.

    Raises:
        TypeError: an option is unknown; the message names the valid ones.
        PlanError: a value makes no sense.
    """
    options = make_options(Options(), {"ranks": ranks, "returns": returns, **changes})
    return lambda function: MpiTask(function, options)
