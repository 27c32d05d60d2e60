"""Laws of plain arrays, which are packed without a pickle: they arrive as they were, others go on as before, and no damaged
head reads past the value's end."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
from typing import Any

import bridgehead as bh
import numpy as np
import pytest
from bridgehead import _bridgehead

KINDS = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "g", "c8", "c16", "G"]
LIMIT = 16 << 10
"""Arrays of fewer bytes arrive as copies that can be written to."""


def around(value: Any) -> tuple[int, Any]:
    """The form of a packed value, and the value as it arrives."""
    packed = _bridgehead.pack_bytes(value)
    return packed[0], _bridgehead.unpack_bytes(packed)


def check(array: np.ndarray[Any, Any], form: int = 3) -> np.ndarray[Any, Any]:
    """An array is packed in this form, and arrives as it was: type, shape, order and numbers."""
    found, copy = around(array)
    assert found == form
    assert type(copy) is np.ndarray and copy.dtype == array.dtype and copy.shape == array.shape
    assert copy.flags.f_contiguous == array.flags.f_contiguous and copy.flags.c_contiguous == array.flags.c_contiguous
    np.testing.assert_array_equal(copy, array)
    return copy


def some(kind: str, shape: Any, order: Any = "C") -> np.ndarray[Any, Any]:
    size = np.prod(shape, dtype=int)
    return (np.arange(size) % 113).astype(kind).reshape(shape, order=order)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_type_arrives_in_both_orders(kind: str, order: str) -> None:
    for shape in ((7,), (3, 5), (2, 3, 4), (60, 70), (0,), (0, 4), (3, 0, 2)):
        check(some(kind, shape, order))


@pytest.mark.parametrize("extra", [-8, 0, 8])
def test_below_the_limit_an_array_is_a_copy_and_beyond_it_a_view(extra: int) -> None:
    copy = check(some("f8", (LIMIT + extra) // 8))
    assert copy.flags.writeable == (extra < 0)
    assert copy.ctypes.data % 16 == 0


def test_what_was_read_only_arrives_as_what_is_written() -> None:
    array = some("i4", 10)
    array.flags.writeable = False
    assert check(array).flags.writeable


def test_no_axes_and_many_axes() -> None:
    check(np.array(3.5), form=1)
    scalar = _bridgehead.unpack_bytes(
        bytes([3, *b"f", 8, 1, 0, 0, 0, 0, 64]).ljust(64, b"\0") + np.float64(3.5).tobytes()
    )
    assert type(scalar) is np.ndarray and scalar.shape == () and scalar == 3.5
    check(np.zeros((1,) * 32, np.int8))
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        check(np.zeros((1,) * 33, np.int8), form=1)


class Derived(np.ndarray[Any, Any]):
    pass


def test_others_are_pickled() -> None:
    for value in (
        np.arange(40)[::3],
        np.arange(24).reshape(4, 6)[:, 1:3],
        np.arange(5, dtype=">i4"),
        np.array(["a", "bc"]),
        np.array(["2020-01-01"], "M8[D]"),
        np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
        np.array([1, None], object),
        np.arange(4).view(Derived),
        np.float64(2.5),
        memoryview(b"abc").tobytes(),
    ):
        form, copy = around(value)
        assert form == 1 and type(copy) is type(value)
        np.testing.assert_array_equal(copy, value)


def test_an_array_inside_something_else_is_pickled_as_before() -> None:
    form, copy = around({"a": np.arange(100_000), "b": np.arange(3)})
    assert form == 2 and not copy["a"].flags.writeable and copy["b"].flags.writeable


def test_what_was_packed_by_a_pickle_is_still_read() -> None:
    array = np.arange(5000.0)
    data = pickle.dumps(array, 5)
    np.testing.assert_array_equal(_bridgehead.unpack_bytes(b"\x01" + data), array)
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(array, 5, buffer_callback=buffers.append)
    begin = -(-(32 + len(data)) // 64) * 64
    head = b"\x02\0\0\0" + (1).to_bytes(4, "little") + len(data).to_bytes(8, "little")
    table = begin.to_bytes(8, "little") + array.nbytes.to_bytes(8, "little")
    framed = (head + table + data).ljust(begin, b"\0") + array.tobytes()
    np.testing.assert_array_equal(_bridgehead.unpack_bytes(framed), array)


@pytest.mark.parametrize("shape", [(3, 4), (50, 60)])
def test_a_damaged_head_is_refused_or_stays_in_bounds(shape: tuple[int, ...]) -> None:
    whole = _bridgehead.pack_bytes(some("f8", shape))
    for end in (*range(70), len(whole) - 1):
        with pytest.raises(RuntimeError, match="damaged"):
            _bridgehead.unpack_bytes(whole[:end])
    with pytest.raises(RuntimeError, match="damaged"):
        _bridgehead.unpack_bytes(whole + b"x")
    chance = random.Random(7)
    for _ in range(20_000):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(1, 34)] = chance.randrange(256)
        try:
            array = _bridgehead.unpack_bytes(bytes(damaged))
        except RuntimeError as error:
            assert "damaged" in str(error)
        else:
            assert array.nbytes + 64 == len(whole) and array.tobytes("A") == whole[64:]


def test_arrays_travel_through_the_store(pool: bh.Executor) -> None:
    for array in (some("f4", 10), some("f8", (300, 200), "F"), some("c16", (40, 50)), some("?", 100_000)):
        for found in (bh.get(bh.put(array)), pool.submit(np.copy, array, order="K").result(60)):
            assert found.dtype == array.dtype and found.flags.f_contiguous == array.flags.f_contiguous
            np.testing.assert_array_equal(found, array)
        assert bh.get(bh.put(array)).flags.writeable == (array.nbytes < LIMIT)
        own = bh.get(bh.put(array), writable=True)
        own[...] = 1
        assert own.flags.writeable and not np.array_equal(bh.get(bh.put(array)), own)


def test_a_view_stays_when_its_reference_goes(pool: bh.Executor) -> None:
    view = bh.get(bh.put(some("i8", 100_000)))
    part = view[5:].reshape(-1, 5)
    del view
    for _ in range(20):
        bh.put(np.zeros(100_000, np.int64))
    np.testing.assert_array_equal(part.ravel(), some("i8", 100_000)[5:])


def test_without_numpy_an_array_says_what_is_missing() -> None:
    code = (
        "import sys\nsys.modules['numpy'] = None\nfrom bridgehead import _bridgehead\n"
        "assert _bridgehead.unpack_bytes(_bridgehead.pack_bytes([1, 2])) == [1, 2]\n"
        "try:\n    _bridgehead.unpack_bytes(sys.stdin.buffer.read())\n"
        "except ImportError as error:\n    print(error)\n"
    )
    packed = _bridgehead.pack_bytes(np.arange(3))
    done = subprocess.run([sys.executable, "-c", code], input=packed, capture_output=True, timeout=60, check=False)
    assert b"numpy is needed" in done.stdout, done.stderr.decode()
