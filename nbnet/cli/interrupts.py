"""Signals: a Ctrl-C that is never lost, whatever is running, and training that stops and saves."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from nbnet import Trainer
from nbnet.training.callbacks import Callback

AGAIN = 0.02  # seconds
CALLED_BY_C = ("_raw_object_cache", "__del__")  # prefixes of functions called from C: llvmlite's object cache, finalisers


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, as Python does. In a function called from C it would be printed and lost: there, signal again later."""
    while frame is not None:
        if frame.f_code.co_name.startswith(CALLED_BY_C):
            later = threading.Timer(AGAIN, signal.raise_signal, [number])
            later.daemon = True
            later.start()
            return
        frame = frame.f_back
    raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[None]:
    """A context in which Ctrl-C is never lost while kernels compile."""
    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if mine:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGINT, signal.default_int_handler)


class Stopper(Callback):
    """Ends training after the current batch on Ctrl-C, SIGTERM and SIGHUP; the second signal of a kind ends it at once.

    Attributes:
        signal: the number of the first one, or None.
    """

    def __init__(self, says: bool = True) -> None:
        self.signal: int | None = None
        self.says = says  # whether it tells the user

    def handle(self, number: int, _: Any) -> None:
        self.signal = self.signal or number
        signal.signal(number, interrupt)
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        with suppress(OSError):  # the terminal is gone
            if self.says:
                os.write(2, f"\nstopping after this batch; {name} again stops at once\n".encode())  # print is not safe in a handler
        if name == "SIGHUP":
            _leave_terminal()

    def on_batch_end(self, trainer: Trainer) -> None:
        if self.signal is not None:
            trainer.stop("interrupted")

    on_epoch_end = on_batch_end


@contextmanager
def stopper(says: bool = True) -> Iterator[Stopper]:
    """A callback that hears of signals within the context. Those that the process ignores, as with nohup, stay ignored.

    Args:
        says: whether it tells the user that training stops.
    """
    stop = Stopper(says)
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield stop
        return
    numbers = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]
    numbers = [signal.SIGINT, *(number for number in numbers if signal.getsignal(number) is signal.SIG_DFL)]
    before = {number: signal.signal(number, stop.handle) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_terminal() -> None:
    """Print to nowhere what would go to a terminal that is closed: printing there fails."""
    for descriptor in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
