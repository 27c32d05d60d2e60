"""Laws of graphs with functions and gangs: all values are right, and neither kind keeps the other from running."""

from __future__ import annotations

from typing import Any

import bridgehead as bh


@bh.task
def number(n: int, *before: int) -> int:
    return n + sum(before)


@bh.mpi(ranks=2)
def spread(comm: Any, *numbers: int) -> int:
    """The sum of all numbers, of which each rank adds its share."""
    return int(comm.allreduce(sum(numbers[comm.rank :: comm.size])))


@bh.task
def chain(n: int) -> int:
    """One after another, as long as there are some left."""
    return 1 + (bh.submit(chain, n - 1).result() if n else 0)


def test_functions_and_gangs_that_need_one_another_give_the_right_values() -> None:
    p = bh.Pipeline("mixed")
    first = [p.add(number, n) for n in range(100)]
    gangs = [p.add(spread.options(ranks=2 + n % 3), *first[5 * n : 5 * n + 5]) for n in range(10)]
    second = [p.add(number, n, gangs[n % 10]) for n in range(100)]
    last = [p.add(spread.options(ranks=2 + n % 3), *second[n::10]) for n in range(10)]
    with p.run(agents=2, cpus=8) as run:
        sums = [sum(range(5 * n, 5 * n + 5)) for n in range(10)]
        assert [run[node].result(100) for node in gangs] == sums
        values = [n + sums[n % 10] for n in range(100)]
        assert [run[node].result(100) for node in second] == values
        assert [run[node].result(100) for node in last] == [sum(values[n::10]) for n in range(10)]


def test_a_gang_is_not_starved_by_small_tasks_that_come_all_the_time() -> None:
    """Each small task that ends is replaced by another, until the gang of all processors has run."""
    with bh.Executor(4, agents=2) as pool:
        small = [pool.submit(number, n) for n in range(64)]
        gang = pool.submit(spread.options(ranks=4), *range(8))
        served = 0
        while not gang.done():
            small.append(pool.submit(number, served))
            small.pop(0).result(60)
            served += 1
            assert served < 100_000, "the gang starves"
        assert gang.result(0) == sum(range(8))
        assert all(future.exception(60) is None for future in small)
