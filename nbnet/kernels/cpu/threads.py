"""The thread pool of parallel loops: threads claim iterations one by one, and no loop waits for a thread that is not running.

Numba's threading layers give each thread a share, and a loop ends when the last thread has come and gone. On a busy machine a thread
may wait milliseconds for a processor, and a loop of 50 us waits with it. Here each thread has a range of its own, so that it meets
the same part of the arrays in every loop. When its range is empty it claims iterations from the ranges of the others. The caller is
thread 0: if no other thread gets a processor, the caller does all the work.

    caller                                   threads 1, 2, ...
    write the job, then all ranges           spin, then sleep, until the generation changes
    next generation; wake sleeping threads
    run chunks until all ranges are empty    run chunks until all ranges are empty
    wait until all claimed chunks are done   add the number of chunks to `done`

A range is one number, (end, next). A thread claims k by replacing the number with next + 1, in one instruction that fails if the
number has changed. It reads the job only after it has claimed a k. The job is then the right one: a job is not over, and not
overwritten, before all its chunks are done.

All chunks run in the caller's floating-point mode. One such loop runs at a time. A second caller runs its loop alone. A forked process
has no threads until it calls `start`.
"""

import atexit
import ctypes
import os
import threading
from contextlib import suppress
from functools import cache

import llvmlite.binding as llvm
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from nbnet.errors import ArgumentError
from nbnet.kernels.cpu.atomics import add, compare_and_swap, load, pause, sleep, store, swap, wake, yield_processor
from nbnet.kernels.cpu.cache import symbols
from nbnet.kernels.cpu.compile import body, c_function
from nbnet.kernels.cpu.floating_point import mode, set_mode
from nbnet.kernels.cpu.numba_private import GET_NUM_THREADS, global_compiler_lock, launch_threads

# The most threads, including the caller. Read once: workspaces have this size, and Numba may read its settings again later.
LIMIT = config.NUMBA_NUM_THREADS
# How long a waiting thread spins before it sleeps: longer than most of the Python between two kernels, since waking is slow.
VARIABLE, MICROSECONDS = "NBNET_SPIN_MICROSECONDS", 500
SPINS = 40  # pauses in a microsecond, about
SPINS_BETWEEN = 1_000  # pauses after which a waiting thread yields its processor to other processes

# Offsets into the state, in bytes. Numbers that different threads write lie in different cache lines.
LINE = 128
GENERATION, DONE, BUSY, THREADS = 0, LINE, 2 * LINE, 3 * LINE
PATIENCE = THREADS + 8  # pauses before a waiting thread sleeps
TASK, DATA, COUNT, SHARERS, MODE = (4 * LINE + 8 * i for i in range(5))  # the job
SLOTS = 5 * LINE  # one line per thread:
RANGE, ASLEEP, LOCK = 0, 8, 16


# ------------------------------------------------------------------------------------------------- compiled


@intrinsic
def _state(context):
    """The address of the state. Machine code on disk is linked against its symbol."""

    def generate(context, builder, signature, args):
        first = builder.module.globals.get("nbnet_threads") or ir.GlobalVariable(builder.module, ir.IntType(8), "nbnet_threads")
        return builder.ptrtoint(first, cgutils.intp_t)

    return types.intp(), generate


@intrinsic
def _thread_count(context):
    """The number of threads that numba.set_num_threads allows the caller."""

    def generate(context, builder, signature, args):
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.IntType(32), []), GET_NUM_THREADS)
        return builder.sext(builder.call(function, []), cgutils.intp_t)

    return types.intp(), generate


@intrinsic
def _call(context, task, k, thread, data):
    """Call the function at an address: void task(intp k, intp thread, void *data)."""

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [cgutils.intp_t] * 3)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), generate


@body
def _slot(state, thread):
    return state + SLOTS + thread * LINE


@body
def _wake_slot(slot):
    if load(slot + ASLEEP) and swap(slot + ASLEEP, 0):
        wake(load(slot + LOCK))


@body
def _run_chunks(state, thread):
    """Claim and run iterations until every range is empty; return how many were run. All belong to one job, since no job ends before
    every thread has counted its iterations.

    A late thread may read `sharers` of the previous job and run in addition to the requested threads. That is harmless.
    """
    ran, sharers, own = 0, load(state + SHARERS), mode()
    for i in range(sharers):
        cell = _slot(state, (thread + i) % sharers) + RANGE
        while True:
            left = load(cell)
            k, end = left & 0xFFFFFFFF, left >> 32
            if k >= end:
                break
            if compare_and_swap(cell, left, left + 1):
                callers = load(state + MODE)
                if own != callers:
                    set_mode(callers)
                    own = callers
                _call(load(state + TASK), k, thread, load(state + DATA))
                ran += 1
    return ran


def _run(task, count, data):
    """Call task for each k in range(count), count < 2^31; return when all calls are done."""
    state = _state()
    threads = min(_thread_count(), load(state + THREADS), count)
    if threads <= 1 or swap(state + BUSY, 1):
        for k in range(count):
            _call(task, k, 0, data)
        return
    store(state + TASK, task)
    store(state + DATA, data)
    store(state + COUNT, count)
    store(state + SHARERS, threads)
    store(state + MODE, mode())
    store(state + DONE, 0)
    for t in range(threads):
        store(_slot(state, t) + RANGE, ((t + 1) * count // threads) << 32 | t * count // threads)
    add(state + GENERATION, 1)
    for t in range(1, threads):
        _wake_slot(_slot(state, t))

    add(state + DONE, _run_chunks(state, 0))
    slot, spins, patience = _slot(state, 0), 0, load(state + PATIENCE)
    while load(state + DONE) < count:
        pause()
        spins += 1
        if spins % SPINS_BETWEEN == 0:
            yield_processor()
        if spins > patience:
            spins = 0
            store(slot + ASLEEP, 1)
            # The last thread either sees that this one is asleep, or finished before this check.
            if load(state + DONE) < count or not swap(slot + ASLEEP, 0):
                sleep(load(slot + LOCK))
    store(state + BUSY, 0)


def _thread_main(thread):
    """The main loop of a thread."""
    state = _state()
    slot, seen, spins, patience = _slot(state, thread), 0, 0, load(state + PATIENCE)
    while load(state + THREADS) > 0:
        generation = load(state + GENERATION)
        if generation != seen:
            seen, spins = generation, 0
            if thread < load(state + SHARERS):
                ran = _run_chunks(state, thread)
                if ran > 0:
                    count = load(state + COUNT)  # read it now: once all chunks are done, the next job may overwrite it
                    if add(state + DONE, ran) == count:
                        _wake_slot(_slot(state, 0))
            continue
        pause()
        spins += 1
        if spins % SPINS_BETWEEN == 0:
            yield_processor()
        if spins > patience:
            spins = 0
            store(slot + ASLEEP, 1)
            idle = load(state + GENERATION) == seen and load(state + THREADS) > 0
            if idle or not swap(slot + ASLEEP, 0):
                sleep(load(slot + LOCK))


# --------------------------------------------------------------------------------------------------- Python

_memory = ctypes.create_string_buffer(SLOTS + LINE * (LIMIT + 1))
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_memory))  # must outlive this module: threads may
_start = -(-ctypes.addressof(_memory) // LINE) * LINE
_allocate_lock = ctypes.PYFUNCTYPE(ctypes.c_void_p)(("PyThread_allocate_lock", ctypes.pythonapi))
_acquire_lock = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)(("PyThread_acquire_lock", ctypes.pythonapi))
_release_lock = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(("PyThread_release_lock", ctypes.pythonapi))
_starting = threading.Lock()
_running: list[threading.Thread] | None = None
_most = LIMIT
_ended = False


def _number(offset):
    return ctypes.c_ssize_t.from_address(_start + offset)


@cache
def _compiled():
    """The function that callers run, whose symbol machine code on disk is linked against, and the one that threads run."""
    launch_threads()  # Numba's own threads, needed for numba.set_num_threads; they get no work
    llvm.add_symbol("nbnet_threads", _start)
    run = c_function(types.void(*[types.intp] * 3))(_run)
    llvm.add_symbol("nbnet_parallel_for", run.address)
    return run, c_function(types.void(types.intp))(_thread_main)


def spin_microseconds():
    """How long a thread that waits for work keeps its processor before it sleeps, about: NBNET_SPIN_MICROSECONDS, by default 500.

    Raises:
        ArgumentError: the variable is not a whole number.
    """
    text = os.environ.get(VARIABLE, "")
    if text and not (text.isdecimal() and len(text) < 10):
        raise ArgumentError(f"{VARIABLE}={text!r}: expected a whole number of microseconds below 10^9, 0 to sleep at once")
    return int(text) if text else MICROSECONDS


def at_most(count):
    """Let this process use so many threads at most, if they are not running yet: other processes have the other processors."""
    global _most
    _most = max(1, min(LIMIT, count))


def start():
    """Start the threads of this process, unless they are running. Loops work with fewer threads, and on the caller's thread alone.

    Raises:
        ArgumentError: NBNET_SPIN_MICROSECONDS is not a whole number.
    """
    global _running
    if _running is not None:
        return
    patience = spin_microseconds() * SPINS
    with global_compiler_lock:  # before _starting: a thread that compiles a loop already holds it
        _, thread_main = _compiled()
    with _starting:
        if _running is not None or _ended:
            return
        for t in range(LIMIT):
            lock = _allocate_lock()
            _acquire_lock(lock, 1)
            _number(SLOTS + t * LINE + LOCK).value = lock
        _number(PATIENCE).value = patience
        _number(THREADS).value = _most
        _running = [threading.Thread(target=thread_main.ctypes, args=(t,), name=f"nbnet-{t}", daemon=True) for t in range(1, _most)]
        with suppress(RuntimeError):  # "can't start new thread": those that run do the work of the others
            for thread in _running:
                thread.start()


symbols["nbnet_parallel_for"] = start


@atexit.register
def _stop():
    """End the threads before the machine code that they run is freed."""
    global _ended
    _ended = True
    _number(THREADS).value = 0
    for t, thread in enumerate(_running or (), 1):
        while thread.is_alive():
            slot = SLOTS + t * LINE
            if _number(slot + ASLEEP).value:  # a caller may wake it at the same time: a lock that is released twice is not used again
                _number(slot + ASLEEP).value = 0
                _release_lock(_number(slot + LOCK).value)
            thread.join(0.001)


def _after_fork():
    """Reset the pool in a forked child, which has the memory but not the threads."""
    global _running, _starting
    ctypes.memset(_start, 0, SLOTS + LINE * LIMIT)
    _running, _starting = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
