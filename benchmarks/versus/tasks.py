"""The functions that all systems run. A worker imports this file or is sent what is in it, so it imports little."""

from __future__ import annotations

from typing import Any


def identity(number: int) -> int:
    """A no-op that gives its number back, so that each result can be checked."""
    return number


def ends(array: Any) -> float:
    """Both ends of an array: what it costs to have it, not to go through it."""
    return float(array[0] + array[-1])
