"""A Ctrl-C that is never lost, whatever is running."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

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
