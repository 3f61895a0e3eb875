"""The threads of parallel loops: who takes part takes one k after the other, and nobody waits for a thread that does not run.

Numba's threading layers give each thread a share, and the loop ends when the last one has come and gone. On a machine with other
work a thread may have to wait some milliseconds for a processor, and a loop of 50 us waits with it. Here each thread has a range of
the loop, so that it meets the same part of the arrays in every loop, and when it is through takes from the ranges of the others. The
caller itself is thread 0: where no other has a processor, it does all the work.

    caller                                   thread 1, 2, ...
    write the job, then everybody's range    spin, then sleep, until the generation changes
    next generation; wake who sleeps
    take from the ranges until all are empty take from the ranges until all are empty
    wait until all that was taken is done    add how many to `done`

A range is one number, (end, next): k is taken by replacing it with next + 1, in one instruction that fails where it has changed. Who
has a k reads the job only then: it is the one that the k is of, since a job is not over, and not overwritten, before all is done.

There is one such loop at a time. A second caller does its loop alone; a process that was forked has no threads until `start`.
"""

import atexit
import ctypes
import os
import threading
from functools import cache

import llvmlite.binding as llvm
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from nbnet.kernels.cpu.atomics import add, give_way, load, pause, replace, sleep, store, swap, wake
from nbnet.kernels.cpu.cache import symbols
from nbnet.kernels.cpu.compile import body, c_function
from nbnet.kernels.cpu.numba_private import GET_NUM_THREADS, global_compiler_lock, launch_threads

# Threads at most, the caller among them: as it is now, since arrays are of this size, and Numba reads its settings again later.
LIMIT = config.NUMBA_NUM_THREADS
# Pauses before who waits sleeps, some 0.5 ms: more than most of the Python between two kernels, since to be woken takes long.
SPINS = 20_000
SPINS_BETWEEN = 1_000  # pauses after which who waits lets other processes have the processor

# The state, in bytes from its start. Numbers that different threads write are a line of the caches apart.
LINE = 128
GENERATION, DONE, BUSY, THREADS = 0, LINE, 2 * LINE, 3 * LINE
TASK, DATA, COUNT, SHARERS = (4 * LINE + 8 * i for i in range(4))  # the job
SEATS = 5 * LINE  # a line for each thread:
RANGE, ASLEEP, LOCK = 0, 8, 16


# ------------------------------------------------------------------------------------------------- compiled


@intrinsic
def _state(context):
    """Where the state is. Machine code on disk knows it by its name."""

    def generate(context, builder, signature, args):
        first = builder.module.globals.get("nbnet_threads") or ir.GlobalVariable(builder.module, ir.IntType(8), "nbnet_threads")
        return builder.ptrtoint(first, cgutils.intp_t)

    return types.intp(), generate


@intrinsic
def _wanted(context):
    """How many threads numba.set_num_threads lets the caller have."""

    def generate(context, builder, signature, args):
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.IntType(32), []), GET_NUM_THREADS)
        return builder.sext(builder.call(function, []), cgutils.intp_t)

    return types.intp(), generate


@intrinsic
def _call(context, task, k, thread, data):
    """The function at an address: void task(intp k, intp thread, void *data)."""

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [cgutils.intp_t] * 3)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), generate


@body
def _seat(state, thread):
    return state + SEATS + thread * LINE


@body
def _rouse(seat):
    if load(seat + ASLEEP) and swap(seat + ASLEEP, 0):
        wake(load(seat + LOCK))


@body
def _take(state, thread):
    """Do what there is to do; for how many k. They are of one job, as none ends while somebody has not counted what he did.

    Who comes late may read `sharers` of the job before, and take part beside as many threads as are wanted. It does no harm.
    """
    taken, sharers = 0, load(state + SHARERS)
    for i in range(sharers):
        cell = _seat(state, (thread + i) % sharers) + RANGE
        while True:
            left = load(cell)
            k, end = left & 0xFFFFFFFF, left >> 32
            if k >= end:
                break
            if replace(cell, left, left + 1):
                _call(load(state + TASK), k, thread, load(state + DATA))
                taken += 1
    return taken


def _run(task, count, data):
    """Call task for each k in range(count), which is below 2^31, and return when all is done."""
    state = _state()
    threads = min(_wanted(), load(state + THREADS), count)
    if threads <= 1 or swap(state + BUSY, 1):
        for k in range(count):
            _call(task, k, 0, data)
        return
    store(state + TASK, task)
    store(state + DATA, data)
    store(state + COUNT, count)
    store(state + SHARERS, threads)
    store(state + DONE, 0)
    for t in range(threads):
        store(_seat(state, t) + RANGE, ((t + 1) * count // threads) << 32 | t * count // threads)
    add(state + GENERATION, 1)
    for t in range(1, threads):
        _rouse(_seat(state, t))

    add(state + DONE, _take(state, 0))
    seat, spins = _seat(state, 0), 0
    while load(state + DONE) < count:
        pause()
        spins += 1
        if spins % SPINS_BETWEEN == 0:
            give_way()
        if spins % SPINS == 0:
            store(seat + ASLEEP, 1)
            # Who is done last either sees that this thread is asleep, or was done before this look.
            if load(state + DONE) < count or not swap(seat + ASLEEP, 0):
                sleep(load(seat + LOCK))
    store(state + BUSY, 0)


def _take_part(thread):
    """What a thread does all its life."""
    state = _state()
    seat, seen, spins = _seat(state, thread), 0, 0
    while load(state + THREADS) > 0:
        generation = load(state + GENERATION)
        if generation != seen:
            seen, spins = generation, 0
            if thread < load(state + SHARERS):
                taken = _take(state, thread)
                if taken > 0:
                    count = load(state + COUNT)  # now: when all is done, the next job may come
                    if add(state + DONE, taken) == count:
                        _rouse(_seat(state, 0))
            continue
        pause()
        spins += 1
        if spins % SPINS_BETWEEN == 0:
            give_way()
        if spins % SPINS == 0:
            store(seat + ASLEEP, 1)
            idle = load(state + GENERATION) == seen and load(state + THREADS) > 0
            if idle or not swap(seat + ASLEEP, 0):
                sleep(load(seat + LOCK))


# --------------------------------------------------------------------------------------------------- Python

_memory = ctypes.create_string_buffer(SEATS + LINE * (LIMIT + 1))
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_memory))  # it outlives this module: threads may
_start = -(-ctypes.addressof(_memory) // LINE) * LINE
_allocate_lock = ctypes.PYFUNCTYPE(ctypes.c_void_p)(("PyThread_allocate_lock", ctypes.pythonapi))
_acquire_lock = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)(("PyThread_acquire_lock", ctypes.pythonapi))
_release_lock = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(("PyThread_release_lock", ctypes.pythonapi))
_starting = threading.Lock()
_running: list[threading.Thread] | None = None
_ended = False


def _number(offset):
    return ctypes.c_ssize_t.from_address(_start + offset)


@cache
def _compiled():
    """What callers run, known by its name to machine code on disk, too, and what threads run."""
    launch_threads()  # Numba's, for numba.set_num_threads: they are never given anything to do
    llvm.add_symbol("nbnet_threads", _start)
    run = c_function(types.void(*[types.intp] * 3))(_run)
    llvm.add_symbol("nbnet_parallel_for", run.address)
    return run, c_function(types.void(types.intp))(_take_part)


def start():
    """Start the threads of this process, unless it has them. Without them, loops run on the caller's."""
    global _running
    if _running is not None:
        return
    with global_compiler_lock:  # before the other one: who compiles a loop has it already
        _, take_part = _compiled()
    with _starting:
        if _running is not None or _ended:
            return
        for t in range(LIMIT):
            lock = _allocate_lock()
            _acquire_lock(lock, 1)
            _number(SEATS + t * LINE + LOCK).value = lock
        _number(THREADS).value = LIMIT
        _running = [threading.Thread(target=take_part.ctypes, args=(t,), name=f"nbnet-{t}", daemon=True) for t in range(1, LIMIT)]
        for thread in _running:  # one that cannot start, as nobody waits for it, is none the less done without
            thread.start()


symbols["nbnet_parallel_for"] = start


@atexit.register
def _stop():
    """Let the threads end before the machine code goes away that they run."""
    global _ended
    _ended = True
    _number(THREADS).value = 0
    for t, thread in enumerate(_running or (), 1):
        while thread.is_alive():
            seat = SEATS + t * LINE
            if _number(seat + ASLEEP).value:  # a caller may wake it at the same moment: then it is free twice, and never taken again
                _number(seat + ASLEEP).value = 0
                _release_lock(_number(seat + LOCK).value)
            thread.join(0.001)


def _after_fork():
    """In a forked child, which has the memory but not the threads."""
    global _running, _starting
    ctypes.memset(_start, 0, SEATS + LINE * LIMIT)
    _running, _starting = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
