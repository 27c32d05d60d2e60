"""How much of everything: full, or tiny, which only shows that all of it runs and is right."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Counts, and bytes of a step.

    Attributes:
        starts: starts of each kind in a round, of which the median counts.
        many: gangs one after another, and again all at once.
        traffic: programs that measure traffic in a round.
        batches: of messages in each of them.
        steps: handed over in a round by each way.
        step: bytes of a step, of both ranks together.
        ways: times that each way of handing steps over has its turn in a round.
    """

    starts: int
    many: int
    traffic: int
    batches: int
    steps: int
    step: int
    ways: int


FULL = Sizes(starts=7, many=100, traffic=5, batches=20, steps=50, step=8 << 20, ways=3)
QUICK = Sizes(starts=1, many=2, traffic=1, batches=2, steps=3, step=1 << 20, ways=1)
