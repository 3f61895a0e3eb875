"""Commits: changes that are made together, so that an exception finds all of them or none.

Python may raise an exception between any two of its instructions: Ctrl-C, the handler of another signal, a lack of memory. It raises
none inside a function of C that runs no Python. So everything is prepared first, as a list of calls of such functions, and one call of C
then goes through the list.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from nbnet.kernels.cpu.numba_private import machine_code, types_of

Call = partial[Any]


def commit(calls: Iterable[Call]) -> None:
    """Make the calls, with no Python between them. A call that runs Python itself (a CUDA launch, a function of the user's) may be
    interrupted; the calls before it are then made, the ones after it are not."""
    deque(map(partial.__call__, calls), maxlen=0)


def assignment(array: Any, values: Any) -> Call:
    """The call that writes values into an array."""
    return partial(operator.setitem, array, ..., values)


def compiled(kernel: Callable[..., Any], args: tuple[Any, ...]) -> Callable[..., Any]:
    """What runs a CPU kernel on arguments of these types without any Python: it is compiled now if it is not yet."""
    kernel.compile(types_of(kernel, args))  # type: ignore[attr-defined]
    return machine_code(kernel, args)
