"""Laws of the package itself: every name that it promises is there, however late it is imported."""

from __future__ import annotations

import subprocess
import sys

import bridgehead as bh
import pytest


def test_every_name_is_there_and_listed() -> None:
    for name in bh.__all__:
        assert getattr(bh, name) is not None and name in dir(bh)
    assert bh.joblib.__name__ == "bridgehead.joblib"  # type: ignore[attr-defined,unused-ignore]


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'tusk'"):
        bh.tusk  # type: ignore[attr-defined] # noqa: B018


def test_a_worker_imports_nothing_that_only_a_driver_uses() -> None:
    script = "import sys, bridgehead._worker, bridgehead._ranks; print('bridgehead._pipeline' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
