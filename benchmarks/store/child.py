"""One system, one group of rows, in a process of its own: ``python -m store.child SYSTEM GROUP full|quick``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from versus.child import serve

from . import examples, ours, peers
from .ours import Sample
from .sizes import FULL, QUICK, Sizes

MODULES = {"bridgehead": "bridgehead", "ray": "ray", "dragon": "dragon"}
"""Every system with the module without which it is skipped."""
MEASURES: dict[tuple[str, str], Callable[[Sizes], Iterator[Sample]]] = {
    ("bridgehead", "node"): ours.node,
    ("bridgehead", "readers"): ours.readers,
    ("bridgehead", "far"): ours.far,
    ("bridgehead", "curve"): ours.curve,
    ("bridgehead", "fabric"): examples.fabric,
    ("bridgehead", "million"): examples.million,
    ("ray", "node"): peers.ray_node,
    ("ray", "far"): peers.ray_far,
    ("dragon", "node"): peers.dragon_node,
}


def main() -> None:
    """Tells each sample as it is there."""
    system, group, size = sys.argv[1:]

    def measure(tell: Any) -> None:
        tell(version=_version(system))
        for row, reached_by, value in MEASURES[system, group](QUICK if size == "quick" else FULL):
            tell(row=row, system=reached_by, value=value)

    serve(measure)


def _version(system: str) -> str:
    from importlib.metadata import version

    if system == "dragon":
        return version("dragonhpc")
    return str(importlib.import_module(MODULES[system]).__version__)


if __name__ == "__main__":
    main()
