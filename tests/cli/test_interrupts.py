"""Ctrl-C."""

import ctypes
import signal
import threading
import time

import pytest

from nbnet.cli import interrupts
from nbnet.cli.interrupts import interruptible


@pytest.fixture(autouse=True)
def python_handles_it():
    """Tests may run in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_at_once():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_not_lost_in_a_function_that_llvm_calls():
    ended = []

    def _raw_object_cache_notify():
        signal.raise_signal(signal.SIGINT)
        ended.append(True)

    def compile_and_go_on():
        ctypes.CFUNCTYPE(None)(_raw_object_cache_notify)()
        while time.perf_counter() < start + 20:
            time.sleep(0.001)

    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt), interruptible():
        compile_and_go_on()
    assert ended == [True]
    assert time.perf_counter() - start < 10


def test_the_name_that_it_looks_for():
    """Of llvmlite's functions that LLVM calls."""
    from llvmlite.binding.executionengine import ExecutionEngine

    assert any(name.startswith(interrupts.CALLED_BY_C[0]) for name in vars(ExecutionEngine))


def test_in_another_thread_signals_stay_as_they_are():
    seen = []

    def work():
        with interruptible():
            seen.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
