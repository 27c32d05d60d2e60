"""How functions and values are pickled when the plain way is not right. Owns what travels by value.

By value goes what lives in `__main__` or in the project's folder (the folder of the script): code, classes and their
instances alike, so that a class is the same class on both sides of a call. All else goes by reference.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import errors

if TYPE_CHECKING:
    from types import ModuleType

MOST = 1 << 20
"""Bytes that a pickled function may have."""

_lock = threading.RLock()
_seen = 0
_own: dict[str, bytes] = {}
_by_reference: set[str] = set()


def _working_folder() -> str:
    """The working folder; the root where a task has left this process in one that is gone."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return os.sep


def project_folder() -> str:
    """The folder whose modules travel by value: the script's, or the working folder without a script."""
    file: str | None = getattr(sys.modules.get("__main__"), "__file__", None)
    path = os.path.normpath(os.path.join(_working_folder(), file)) if file else ""
    return os.path.dirname(path) if path and not _installed(path) else _working_folder()


def _installed(path: str) -> bool:
    parts = path.split(os.sep)
    return "site-packages" in parts or "dist-packages" in parts or path.startswith((sys.base_prefix, sys.prefix))


def _is_own(name: str, module: ModuleType, folder: str) -> bool:
    if name == "__main__" or name.partition(".")[0] == "bridgehead" or name in _by_reference:
        return False
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        return False
    path = os.path.normpath(os.path.join(_working_folder(), file))
    return path.startswith(folder + os.sep) and not _installed(path)


def _own_modules() -> dict[str, bytes]:
    """Modules of the project that are loaded, by name, with the name as it stands in a pickle."""
    global _seen
    if len(sys.modules) != _seen:
        with _lock:
            _seen = len(sys.modules)
            folder = project_folder()
            for name, module in list(sys.modules.items()):
                if name not in _own and _is_own(name, module, folder):
                    _own[name] = name.encode()
    return _own


def must_travel_by_value(data: bytes) -> bool:
    """Whether a plain pickle names something that only this process has."""
    return b"__main__" in data or any(name in data for name in _own_modules().values())


def dumps_by_value(value: Any, buffers: Callable[[Any], bool] | None = None) -> bytes:
    """A pickle with what is the project's own by value.

    Raises:
        UnpicklableError: something in it cannot travel; the message names the path to it.
    """
    import cloudpickle

    with _lock:
        own = [sys.modules[name] for name in _own_modules() if name in sys.modules]
        for module in own:
            cloudpickle.register_pickle_by_value(module)
        try:
            return bytes(cloudpickle.dumps(value, protocol=5, buffer_callback=buffers))
        except errors.BridgeheadError:
            raise
        except Exception as error:
            if not own:
                raise errors.UnpicklableError(_explain(value, error)) from error
        finally:
            for module in own:
                cloudpickle.unregister_pickle_by_value(module)
        # A module of the project holds something that cannot travel (a lock, an open file). From now on the project's
        # modules go by reference, all of them, so that their classes stay the same on both sides of a call; workers
        # import them from the same folder.
        try:
            data = bytes(cloudpickle.dumps(value, protocol=5, buffer_callback=buffers))
        except Exception as error:
            raise errors.UnpicklableError(_explain(value, error)) from error
        _by_reference.update(_own)
        _own.clear()
        return data


def name_of(function: Callable[..., Any]) -> str:
    """``module.qualname``, for people."""
    module = getattr(function, "__module__", None) or "?"
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return name if module == "__main__" else f"{module}.{name}"


def short_name(function: Callable[..., Any]) -> str:
    """`name_of`, or the end of it where it has more bytes than a document takes."""
    return name_of(function).encode(errors="replace")[-256:].decode(errors="ignore")


def dump_function(function: Callable[..., Any]) -> tuple[bytes, bytes]:
    """A function's code and its SHA-256 digest.

    Raises:
        ClosureTooLarge: it carries too much data along.
        UnpicklableError: it carries something that cannot travel.
    """
    import hashlib

    try:
        code = pickle.dumps(function, 5)
    except Exception:
        code = dumps_by_value(function)
    else:
        if must_travel_by_value(code):
            code = dumps_by_value(function)
    if len(code) > MOST:
        raise errors.ClosureTooLarge(_largest(function, len(code)))
    return code, hashlib.sha256(code).digest()


def load_function(name: str, code: bytes) -> Any:
    """The function `name` from its code, in a worker."""
    try:
        return pickle.loads(code)
    except BaseException as error:
        error.add_note(f"the function {name} could not be loaded in the worker (Python {sys.version.split()[0]})")
        raise


def _caught(function: Any) -> dict[str, Any]:
    """What a function carries along, by name."""
    code = getattr(function, "__code__", None)
    if code is None:
        return dict(vars(function)) if hasattr(function, "__dict__") else {}
    found: dict[str, Any] = {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue  # Not assigned yet.
    scope = function.__globals__
    found.update({name: scope[name] for name in code.co_names if name in scope})
    names = code.co_varnames[: code.co_argcount]
    defaults = function.__defaults__ or ()
    found.update(zip(names[len(names) - len(defaults) :], defaults, strict=True))
    return found


def _largest(function: Any, total: int) -> str:
    sizes = []
    for name, value in _caught(function).items():
        try:
            sizes.append((len(dumps_by_value(value)), name))
        except Exception:
            continue  # It has no size to name.
    sizes.sort(reverse=True)
    largest = ", ".join(f"{name} ({size:,} bytes)" for size, name in sizes[:3])
    return (
        f"{name_of(function)} carries {total:,} bytes along, more than the {MOST:,} that a function may; the largest "
        f"names that it caught: {largest or 'none found'}. Give such data as an argument, or through bridgehead.put"
    )


def _explain(value: Any, error: Exception) -> str:
    path, culprit = _culprit(value)
    what = f"{type(culprit).__module__}.{type(culprit).__qualname__}".removeprefix("builtins.")
    return f"{path} is a {what}, which cannot travel to another process ({error}): leave it out, or make it in the task"


def _travels(value: Any) -> bool:
    import cloudpickle

    try:
        cloudpickle.dumps(value, 5)
    except Exception:
        return False
    return True


def _culprit(value: Any) -> tuple[str, Any]:
    """The innermost part that cannot travel, with the path of attributes, keys and positions to it."""
    path, seen = _root(value), {id(value)}
    if _is_call(value):
        value, path = (value[0] if not _travels(value[0]) else value[1]), "argument"
    while True:
        for name, part in _parts(value):
            if id(part) not in seen and not _travels(part):
                seen.add(id(part))
                path, value = path + name, part
                break
        else:
            return path, value


def _is_call(value: Any) -> bool:
    return type(value) is tuple and len(value) == 2 and type(value[0]) is tuple and type(value[1]) is dict


def _root(value: Any) -> str:
    return name_of(value) if callable(value) else type(value).__qualname__


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"[{key!r}]", part) for key, part in value.items()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [(f"[{i}]", part) for i, part in enumerate(value)]
    if getattr(value, "__code__", None) is not None:
        return [(f".<{name}>", part) for name, part in _caught(value).items()]
    state = getattr(value, "__dict__", None)
    found = list(state.items()) if isinstance(state, dict) else []
    for slots in (getattr(kind, "__slots__", ()) for kind in type(value).__mro__):
        names = (slots,) if isinstance(slots, str) else slots
        found.extend((name, getattr(value, name)) for name in names if hasattr(value, name))
    return [(f".{name}", part) for name, part in found if name != "__weakref__"]
