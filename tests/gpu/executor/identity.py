"""The identity of a kernel: what its machine code depends on, as text that is the same in every process."""

import enum
import hashlib
import types
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


@cache
def _surroundings():
    """The executor itself, and the packages that types and code come from."""
    own = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(HERE.glob("*.*"))]
    return [*own, *(version(name) for name in ("numba", "numba-cuda", "llvmlite", "numpy"))]


def identity(dispatcher, signature):
    """A digest of a kernel's code, of all functions that it calls and of the values in them, for arguments of some types."""
    described = _describe(dispatcher.py_func, ())
    return hashlib.sha256(repr([described, str(signature), _surroundings()]).encode()).hexdigest()


def _describe(value, above):
    """What a value is, without addresses. above: the functions around it, since functions may call each other."""
    value = getattr(value, "py_func", getattr(value, "_defn", value))  # of a dispatcher, of an intrinsic
    if isinstance(value, types.FunctionType):
        return value.__qualname__ if value in above else _describe_function(value, (*above, value))
    if isinstance(value, (tuple, list)):
        return [_describe(each, above) for each in value]
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, types.CodeType):
        constants = [_describe(each, above) for each in value.co_consts]
        return value.co_filename, list(value.co_lines()), value.co_code, value.co_names, value.co_varnames, constants
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic, np.dtype, enum.Enum, frozenset)):
        return repr(value)
    return getattr(value, "__module__", ""), getattr(value, "__qualname__", getattr(value, "__name__", type(value).__qualname__))


def _describe_function(function, above):
    code = function.__code__
    names, open_ = set(code.co_names), [code]
    while open_:  # functions within it
        inner = [each for each in open_.pop().co_consts if isinstance(each, types.CodeType)]
        names |= {name for each in inner for name in each.co_names}
        open_ += inner
    used = {name: function.__globals__[name] for name in sorted(names & function.__globals__.keys())}
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    if not function.__module__.startswith(("nbnet", "gpu", "kernels", "test")):
        used = {}  # of a package, whose version is known
    return [_describe(each, above) for each in (code, cells, function.__defaults__ or (), list(used), list(used.values()))]
