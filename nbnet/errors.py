"""Every exception of nbnet. Each is an NbnetError and also the built-in exception closest to it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class NbnetError(Exception):
    """Base of every error that nbnet raises on purpose. The message is one line: what was passed, what was expected, how to fix it."""


class ShapeError(NbnetError, ValueError):
    """An array has the wrong rank or size."""


class DTypeError(NbnetError, TypeError):
    """An array has the wrong element type."""


class ArgumentError(NbnetError, ValueError):
    """An argument or option has an invalid value."""


class CallError(NbnetError, TypeError):
    """A call has an argument that the function does not have, or lacks one."""


class MethodError(NbnetError, AttributeError):
    """A method of other libraries that nbnet does not have."""


class BackendError(NbnetError, ValueError):
    """The backend is unknown or cannot run on this machine."""


class ExtraError(NbnetError, ImportError):
    """An optional part of nbnet needs a package that is not installed; the message has the command that installs it."""


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


class RankError(NbnetError, RuntimeError):
    """A rank of a distributed run has failed, or differs from the others; the message names it."""

    def __init__(self, message: str, speaker: int | None = None) -> None:
        super().__init__(message)
        self.speaker = speaker  # the rank that prints it, as the command line does


class OnnxError(NbnetError, ValueError):
    """An ONNX file is damaged, or contains something that nbnet does not support."""


# What other libraries call it.
OTHER_NAMES = {
    "mse": "mean_squared_error",
    "l2": "mean_squared_error",
    "l1": "mean_absolute_error",
    "bce": "binary_cross_entropy",
    "binary_crossentropy": "binary_cross_entropy",
    "bcewithlogitsloss": "binary_cross_entropy",
    "smooth_l1": "huber",
    "kld": "kl_divergence",
    "kldivloss": "kl_divergence",
    "triplet_margin": "triplet",
    "cross_entropy": "softmax_cross_entropy",
    "crossentropyloss": "softmax_cross_entropy",
    "categorical_crossentropy": "softmax_cross_entropy",
    "sparse_categorical_crossentropy": "softmax_cross_entropy",
    "nll": "softmax_cross_entropy",
    "xavier": "glorot_uniform",
    "xavier_uniform": "glorot_uniform",
    "xavier_normal": "glorot_normal",
    "kaiming": "he_normal",
    "kaiming_uniform": "he_uniform",
    "kaiming_normal": "he_normal",
    "cpu": "parallel",
    "gpu": "cuda",
}


def unknown(kind: str, name: object, options: Iterable[str]) -> str:
    """The message for an unknown name: it suggests the nearest option, if one is near, and lists all."""
    names = list(options)
    text = str(name).lower()
    near = [each for each in (OTHER_NAMES.get(text),) if each in names] or difflib.get_close_matches(text, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {kind} {name!r}: {hint}choose one of {', '.join(names)}"


def first_line(error: BaseException) -> str:
    """The message of another library, on one line."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()  # some are coloured, for a terminal
    return f"{type(error).__name__}{': ' + lines[0][:200] if lines else ''}"
