"""How much of everything: full, or tiny, which only shows that all of it runs and is right."""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

AROUND = tuple(kib * KIB for kib in (16, 24, 32, 48, 56, 64, 72, 96, 128, 192, 256))
"""Sizes around that from which an object is lent and read instead of sent in an answer."""


@dataclass(frozen=True)
class Sizes:
    """Bytes and counts.

    Attributes:
        curve: sizes of the curve.
        store: limit of a store in rows of one node and of the curve, as `bridgehead.Executor` takes it.
    """

    large: int
    huge: int
    counts: int
    small_counts: int
    dragon_counts: int
    readers: int
    curve: tuple[int, ...]
    store: str
    objects: int


FULL = Sizes(
    large=64 * MIB,
    huge=256 * MIB,
    counts=7,
    small_counts=1_000,
    dragon_counts=50,
    readers=16,
    curve=tuple(sorted({*(4**n for n in range(16)), *AROUND})),
    store="4GiB",
    objects=1_000_000,
)
QUICK = Sizes(
    large=1 * MIB,
    huge=2 * MIB,
    counts=2,
    small_counts=10,
    dragon_counts=3,
    readers=2,
    curve=(1, KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB),
    store="64MiB",
    objects=1_000,
)


def repeats(size: int) -> int:
    """How often a size of the curve is measured in a round."""
    return 21 if size <= MIB else 5 if size <= 64 * MIB else 2
