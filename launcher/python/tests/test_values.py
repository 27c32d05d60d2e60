"""Laws of values: what travels arrives as it was, and what cannot travel says why."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import bridgehead as bh
import numpy as np
import pytest
from bridgehead import _bridgehead


def check(value: Any) -> Any:
    """A value survives packing and unpacking."""
    copy = _bridgehead.unpack_bytes(_bridgehead.pack_bytes(value))
    np.testing.assert_equal(copy, value)
    return copy


@pytest.mark.parametrize("value", [None, 0, "text", b"", {"a": [1, (2, 3)]}, float("inf")])
def test_plain_values_survive(value: Any) -> None:
    check(value)


@pytest.mark.parametrize("shape", [(0,), (10,), (100_000,), (300, 300)])
@pytest.mark.parametrize("kind", ["<f8", ">i4", "?", "U3", "c16"])
def test_arrays_survive(shape: tuple[int, ...], kind: str) -> None:
    check(np.zeros(shape, dtype=kind))


def test_several_arrays_and_their_order_survive() -> None:
    check([np.arange(5000.0), "between", np.arange(9000), np.ones((50, 50), order="F"), np.arange(40_000)[::3]])


def test_a_large_array_is_a_view_and_a_small_one_a_copy() -> None:
    large, small = check([np.arange(100_000), np.arange(10)])
    assert not large.flags.owndata and not large.flags.writeable
    assert large.ctypes.data % 16 == 0
    assert small.flags.writeable


@pytest.mark.parametrize("cut", [0, 1, 8, 20, 50, 1000, 60_000])
def test_a_damaged_value_is_refused(cut: int) -> None:
    packed = _bridgehead.pack_bytes(np.arange(10_000.0))
    with pytest.raises(Exception, match="damaged|truncated|Ran out"):
        _bridgehead.unpack_bytes(packed[:cut])


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(RuntimeError, match="form 99 is unknown"):
        _bridgehead.unpack_bytes(b"\x63abc")


class Holder:
    def __init__(self) -> None:
        self.inner = {"list": [1, threading.Lock()]}


def test_what_cannot_travel_is_named_with_its_path(pool: bh.Executor) -> None:
    with pytest.raises(bh.UnpicklableError, match=r"argument\[0\]\.inner\['list'\]\[1\] is a _thread\.lock"):
        pool.submit(len, Holder())


def test_a_result_that_cannot_travel_is_named(pool: bh.Executor) -> None:
    with pytest.raises(bh.UnpicklableError, match=r"Holder\.inner\['list'\]\[1\]"):
        pool.submit(Holder).result(60)


def test_a_large_closure_is_refused_with_its_size_and_name() -> None:
    blob = bytes(2 << 20)
    task = bh.task(lambda: len(blob))
    with pytest.raises(bh.ClosureTooLarge, match=r"2,097,\d+ bytes.*blob \(2,097,\d+ bytes\)"):
        bh.Pipeline("p").add(task)


def test_a_reference_arrives_as_its_value(pool: bh.Executor) -> None:
    ref = bh.put(np.arange(50_000))
    assert [pool.submit(np.sum, r).result(60) for r in (ref, ref)] == [1_249_975_000] * 2
    assert bh.get(ref).shape == (50_000,)


def test_a_reference_cannot_be_pickled_outside_a_call(tmp_path: Path) -> None:
    import pickle

    with pytest.raises(TypeError, match="argument of a task"):
        pickle.dumps(bh.put(1))


def test_a_module_of_the_project_that_cannot_travel_goes_by_reference(
    pool: bh.Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess
    import sys

    (tmp_path / "helper.py").write_text(
        "import threading, dataclasses\nlock = threading.Lock()\n"
        "@dataclasses.dataclass\nclass Conf:\n    n: int\n\ndef plus(c):\n    with lock: return Conf(c.n + 1)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(
        "import bridgehead as bh, helper\n"
        "def f(c):\n    assert isinstance(c, helper.Conf)\n    return helper.plus(c)\n"
        "if __name__ == '__main__':\n"
        "    with bh.Executor(1) as ex:\n        print(ex.submit(f, helper.Conf(1)).result() == helper.Conf(2))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")
