"""Functions as bytes: by name where any process can import them, by value where they live in the user's own files."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ._values import _explain
from .errors import ClosureTooLarge, UnpicklableError

LIMIT = 1 << 20
"""Bytes that a pickled function may have; data belongs into arguments or the store."""


def name_of(function: Callable[..., Any]) -> str:
    """``module.qualname``, for people."""
    module = getattr(function, "__module__", None) or "?"
    name = getattr(function, "__qualname__", None) or type(function).__name__
    return name if module == "__main__" else f"{module}.{name}"


def _project_folder() -> Path | None:
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(main).resolve().parent if main else None


def _is_own(module_name: str) -> bool:
    """Whether a module belongs to the user's project: no package installed beside it, no part of Python."""
    module = sys.modules.get(module_name)
    file = getattr(module, "__file__", None)
    folder = _project_folder()
    if not file or folder is None:
        return False
    path = Path(file).resolve()
    return path.is_relative_to(folder) and "site-packages" not in path.parts


def pickle_function(function: Callable[..., Any]) -> tuple[bytes, bytes]:
    """The function's bytes and their SHA-256 digest.

    Raises:
        ClosureTooLarge: it drags more than `LIMIT` bytes along.
        UnpicklableError: it holds something that cannot be sent.
    """
    module = getattr(function, "__module__", None) or "__main__"
    by_name = module != "__main__" and not _is_own(module)
    data = _by_name(function) if by_name else None
    if data is None:
        data = _by_value(function, module)
    if len(data) > LIMIT:
        raise ClosureTooLarge(_large(function, len(data)))
    return data, hashlib.sha256(data).digest()


def _by_name(function: Callable[..., Any]) -> bytes | None:
    try:
        data = pickle.dumps(function, 5)
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    return None if b"__main__" in data else data


def _by_value(function: Callable[..., Any], module: str) -> bytes:
    import cloudpickle

    own = sys.modules.get(module) if module != "__main__" and _is_own(module) else None
    if own is not None:
        cloudpickle.register_pickle_by_value(own)
    try:
        return bytes(cloudpickle.dumps(function, 5))
    except Exception as error:
        raise UnpicklableError(_explain(function, error)) from error
    finally:
        if own is not None:
            cloudpickle.unregister_pickle_by_value(own)


def _large(function: Callable[..., Any], total: int) -> str:
    import cloudpickle

    code = getattr(function, "__code__", None)
    caught: dict[str, Any] = {}
    if code is not None:
        cells = getattr(function, "__closure__", None) or ()
        caught.update(zip(code.co_freevars, (cell.cell_contents for cell in cells), strict=False))
        scope = getattr(function, "__globals__", {})
        caught.update({name: scope[name] for name in code.co_names if name in scope})
    sizes = []
    for name, value in caught.items():
        with contextlib.suppress(Exception):  # What cannot be pickled has no size to name.
            sizes.append((len(cloudpickle.dumps(value, 5)), name))
    largest = ", ".join(f"{name} ({size:,} bytes)" for size, name in sorted(sizes, reverse=True)[:3])
    return (
        f"{name_of(function)} takes {total:,} bytes along, more than the {LIMIT:,} that a function may; the largest names "
        f"that it caught: {largest or 'none found'}. Pass such data as an argument, or through bridgehead.put"
    )
