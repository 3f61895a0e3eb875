"""What callbacks are, and how Trainer.fit finds their methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from nbnet.code_repr import CodeRepr
from nbnet.errors import ArgumentError

Hook = Callable[[Any], None]  # a method of a callback, which gets the Trainer
HOOKS = ("on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_batch_begin", "on_batch_end")


class Callback(CodeRepr):
    """Base class of callbacks: override what you need. `trainer.stop(reason)` ends training after the current batch.

    An object without this base needs one of the methods. An exception in one ends `fit`; the run is between two steps then, can be
    saved, and goes on with the next call of `fit`.
    """

    _package = "nbnet.callbacks"
    first_rank_only = False  # with comm, whether only rank 0 calls it, as one that prints or writes

    def on_train_begin(self, trainer: Any) -> None:
        """Called with the Trainer when `fit` begins, once its arguments are checked."""

    def on_train_end(self, trainer: Any) -> None:
        """Called before `fit` returns, also if training was stopped, but not after an exception: what must be closed then, close
        around `fit`, by `with` or `finally`."""

    def on_epoch_begin(self, trainer: Any) -> None:
        """Called before the first batch of each epoch, and of the rest of an epoch that was stopped within."""

    def on_epoch_end(self, trainer: Any) -> None:
        """Called after each epoch, once its row is in trainer.history."""

    def on_batch_begin(self, trainer: Any) -> None:
        """Called before each optimiser step."""

    def on_batch_end(self, trainer: Any) -> None:
        """Called after each optimiser step."""


def hooks_of(callbacks: Any, rank: int = 0) -> dict[str, list[Hook]]:
    """By name, the methods of the callbacks of a call of fit on a rank; without those of the base class, which do nothing.

    Raises:
        ArgumentError: they are not in a list, or one is not an object with such a method.
    """
    if not isinstance(callbacks, Iterable):
        hint = "use callbacks=[callback]" if _is_callback(callbacks) else "expected a list, such as [nb.callbacks.EarlyStopping()]"
        raise ArgumentError(f"callbacks={_called(callbacks)}: {hint}")
    hooks: dict[str, list[Hook]] = {name: [] for name in HOOKS}
    seen: list[Any] = []
    for callback in callbacks:
        if any(callback is each for each in seen):
            raise ArgumentError(f"callbacks has the same {_called(callback)} twice, expected different objects: leave one out")
        seen.append(callback)
        if isinstance(callback, type):
            raise ArgumentError(f"callbacks has the class {callback.__name__}, expected an object: use {callback.__name__}(...)")
        if not _is_callback(callback):
            raise ArgumentError(
                f"callbacks has {_called(callback)}, expected an object with {', '.join(HOOKS[:-1])} or {HOOKS[-1]}: write a class with "
                "def on_epoch_end(self, trainer), whose base is nb.callbacks.Callback"
            )
        for name, found in hooks.items():
            method = getattr(callback, name, None)
            left_out = rank > 0 and getattr(callback, "first_rank_only", False)
            if not left_out and callable(method) and getattr(method, "__func__", None) is not getattr(Callback, name):
                found.append(method)
    return hooks


def _is_callback(thing: Any) -> bool:
    return any(callable(getattr(thing, name, None)) for name in HOOKS)


def _called(thing: Any) -> str:
    return str(getattr(thing, "__name__", None) or type(thing).__name__)
