"""Laws of what cannot travel, or travels badly: the message names the path, the size, the way out; nothing is lost."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import bridgehead as bh
import pytest
from support import check_still_works, failure_of


@pytest.fixture(scope="module")
def pool() -> Iterator[bh.Executor]:
    with bh.Executor(2) as executor:
        yield executor


class Config:
    def __init__(self) -> None:
        self.lock = threading.Lock()


class Holder:
    def __init__(self) -> None:
        self.config = Config()


def take(*args: Any, **kwargs: Any) -> int:
    return len(args) + len(kwargs)


@pytest.mark.parametrize(
    ("args", "kwargs", "path"),
    [
        ((Holder(),), {}, r"argument\[0\]\.config\.lock is a _thread\.lock"),
        ((1, [2, {"key": Config()}]), {}, r"argument\[1\]\[1\]\['key'\]\.lock is a _thread\.lock"),
        ((), {"setup": Holder()}, r"argument\['setup'\]\.config\.lock is a _thread\.lock"),
        (((x for x in range(3)),), {}, r"argument\[0\] is a generator"),
        ((1, open(os.devnull, "w")), {}, r"argument\[1\] is a _io\.TextIOWrapper"),  # noqa: SIM115
    ],
    ids=["attributes", "items", "by name", "generator", "open file"],
)
def test_an_argument_is_named_with_its_path(
    pool: bh.Executor, args: tuple[Any, ...], kwargs: dict[str, Any], path: str
) -> None:
    with pytest.raises(bh.UnpicklableError, match=path):
        pool.submit(take, *args, **kwargs)
    with pytest.raises(bh.UnpicklableError, match=path):
        bh.Pipeline("p").add(bh.task(take), *args, **kwargs)
    check_still_works(pool)
    for value in args:
        if hasattr(value, "close"):
            value.close()


def give_generator() -> Any:
    return (x for x in range(3))


def give_nested() -> dict[str, Any]:
    return {"deep": [Config()]}


def test_a_result_is_named_with_its_path(pool: bh.Executor) -> None:
    failure_of(pool.submit(give_nested), bh.UnpicklableError, "dict['deep'][0].lock is a _thread.lock")
    failure_of(pool.submit(give_generator), bh.UnpicklableError, "generator")
    check_still_works(pool)


class Greedy:
    def __reduce__(self) -> Any:
        raise RuntimeError("will not be pickled")


class Spiteful:
    """Pickles well and does not load."""

    def __reduce__(self) -> Any:
        return (int, ("no number",))


def give(kind: str) -> Any:
    return {"greedy": Greedy, "spiteful": Spiteful}[kind]()


def test_what_refuses_to_be_pickled_or_loaded_says_so(pool: bh.Executor) -> None:
    with pytest.raises(bh.UnpicklableError, match="will not be pickled"):
        pool.submit(take, Greedy())
    failure_of(pool.submit(give, "greedy"), bh.UnpicklableError, "will not be pickled")
    failure_of(pool.submit(take, Spiteful()), ValueError, "no number")
    failure_of(pool.submit(give, "spiteful"), ValueError, "no number")
    check_still_works(pool)


def test_a_large_closure_is_refused_with_its_largest_names() -> None:
    table, small, note = bytes(3 << 20), bytes(1 << 20), "x"

    def work() -> int:
        return len(table) + len(small) + len(note)

    with pytest.raises(
        bh.ClosureTooLarge, match=r"work carries 4,19\d,\d+ bytes.*table \(3,.*small \(1,.*bridgehead.put"
    ):
        bh.Pipeline("p").add(bh.task(work))


class NeedsTwo(Exception):
    def __init__(self, code: int, *, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code


class Locked(Exception):
    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("has no words")


def fail(kind: str) -> None:
    if kind == "needs two":
        raise NeedsTwo(7, text="seven")
    if kind == "locked":
        raise Locked
    if kind == "mute":
        raise Mute
    if kind == "huge":
        raise ValueError("x" * (100 << 20))
    if kind == "chain":
        try:
            {}["inner"]
        except KeyError as error:
            outer = OSError("outer")
            outer.add_note("a note that was added")
            raise outer from error
    if kind == "group":
        raise ExceptionGroup("several", [ValueError("one"), NeedsTwo(2, text="two")])
    if kind == "exit":
        raise SystemExit(3)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("needs two", ("NeedsTwo: seven (7)",)),
        ("locked", ("Locked: holds a lock", "raise Locked")),
        ("mute", ("Mute",)),
        ("huge", ("ValueError: xxx", "left out")),
        ("chain", ("OSError: outer", "KeyError: 'inner'", "direct cause", "a note that was added", "in fail")),
        ("group", ("ExceptionGroup: several", "ValueError: one", "NeedsTwo: two (2)")),
        ("exit", ("SystemExit: 3",)),
    ],
)
def test_every_exception_arrives_with_its_words_and_traceback(kind: str, words: tuple[str, ...]) -> None:
    p = bh.Pipeline("fails")
    bad, good = p.add(bh.task(fail), kind), p.add(bh.task(take), 1)
    with p.run() as run:
        error = failure_of(run[bad], bh.TaskError, *words)
        assert isinstance(error, bh.TaskError) and error.remote_traceback
        assert run[good].result(60) == 1
    if kind == "chain":
        assert isinstance(error.__cause__, OSError) and error.__cause__.__notes__ == ["a note that was added"]


@pytest.mark.parametrize("size", [50_000_000, 100_000_000])
def test_a_large_result_arrives_or_is_refused_by_its_size(pool: bh.Executor, size: int) -> None:
    future = pool.submit(bytes, size)
    if (error := future.exception(60)) is None:
        assert len(future.result()) == size
    else:
        assert size > 60_000_000 and isinstance(error, bh.StoreFull), repr(error)
        assert f"{size}"[:5] in str(error) and "write it to a file" in str(error)
    check_still_works(pool)


def test_inputs_that_are_too_large_together_arrive_or_are_refused_by_their_size() -> None:
    p = bh.Pipeline("together")
    parts = [p.add(bh.task(bytes), 8_000_000) for _ in range(10)]
    whole, good = p.add(bh.task(take), *parts), p.add(bh.task(take), 1)
    with p.run() as run:
        assert run[good].result(60) == 1
        error = run[whole].exception(60)
        assert error is None or ("bytes together" in str(error) and "less at a time" in str(error)), repr(error)
