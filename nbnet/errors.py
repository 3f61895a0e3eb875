"""Every exception of nbnet. Each is an NbnetError and also the built-in exception closest to it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NbnetError(Exception):
    """Base of every error that nbnet raises on purpose. The message is one line: what was passed, what was expected, how to fix it."""


class ShapeError(NbnetError, ValueError):
    """An array has the wrong rank or size."""


class DTypeError(NbnetError, TypeError):
    """An array has the wrong element type."""


class ArgumentError(NbnetError, ValueError):
    """An argument or option has an invalid value."""


class BackendError(NbnetError, ValueError):
    """The backend is unknown or cannot run on this machine."""


class KernelError(NbnetError, LookupError):
    """The backend has no such kernel."""


class BuildError(NbnetError, RuntimeError):
    """A layer was used before it was built, or does not fit the layer before it."""


class DataError(NbnetError, ValueError):
    """A data set, an image or a label cannot be used, or a file cannot be written."""


class CheckpointError(NbnetError, OSError):
    """A checkpoint cannot be written or read, or belongs to something else."""


class NonFiniteError(NbnetError, ArithmeticError):
    """NaN or infinity appeared in the data, an activation or the loss."""


class GradientError(NbnetError, AssertionError):
    """A backward pass disagrees with finite differences."""


def unknown(kind: str, name: object, options: Iterable[str]) -> str:
    """The message for an unknown name: it suggests the nearest option, if one is near, and lists all."""
    names = list(options)
    near = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {kind} {name!r}: {hint}choose one of {', '.join(names)}"
