"""The threads of parallel loops: who takes part takes tickets, and nobody waits for a thread that does not run.

Numba's threading layers give each thread a share, and the loop ends when the last one has come and gone. On a machine with other
work a thread may have to wait some milliseconds for a processor, and a loop of 50 us waits with it. Here a loop is cut into tickets.
Each thread has a range of them, next to each other, so that it meets the same part of the arrays in every loop, and when it is
through takes from the ranges of the others. The caller itself is thread 0: where no other has a processor, it does all the work.

    caller                                        thread 1, 2, ...
    write the job; give each range its tickets    spin, then sleep, until the generation changes
    next generation; wake who sleeps
    take tickets until there are none             take tickets until there are none
    wait until all of them are done               add how many to `done`

A range is one number, (generation, end, next): a ticket is taken by replacing it with next + 1 in one instruction, which fails where
the job is over meanwhile. Who has a ticket may read the job: it is not over, and so not overwritten, before that ticket is done.

There is one such loop at a time. A second caller does its loop alone, and so does one in a process that was forked, until `start`
gives it threads of its own.
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
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic
from numba.np.ufunc.parallel import _launch_threads

from nbnet.kernels.atomics import add, give_way, load, pause, replace, sleep, store, swap, wake
from nbnet.kernels.compile import body, c_function

SPINS = 20_000  # pauses before who waits sleeps: some 0.5 ms, as to be woken takes longer than most of the Python between two kernels
SPINS_BETWEEN = 1_000  # pauses after which who has nothing to do gives way to other processes
TICKETS = 1 << 15  # of a loop, at most
GENERATIONS = 1 << 30

# The state, in bytes from its start. Numbers that different threads write are a line of the caches apart.
LINE = 128
GENERATION, DONE, BUSY, THREADS = 0, LINE, 2 * LINE, 3 * LINE
TASK, DATA, COUNT, PARTS, SHARERS = (4 * LINE + 8 * i for i in range(5))  # the job
SEATS = 5 * LINE  # a line for each thread:
RANGE, ASLEEP, LOCK = 0, 8, 16


# ------------------------------------------------------------------------------------------------- compiled


@intrinsic
def _state(context):
    """Where the state is. Machine code on disk knows it by a name."""

    def generate(context, builder, signature, args):
        start = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), []), "nbnet_threads")  # any symbol
        return builder.ptrtoint(start, cgutils.intp_t)

    return types.intp(), generate


@intrinsic
def _wanted(context):
    """How many threads numba.set_num_threads lets the caller have."""

    def generate(context, builder, signature, args):
        return builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(cgutils.intp_t, []), "get_num_threads"), [])

    return types.intp(), generate


@intrinsic
def _call(context, task, thread, start, count, data):
    """The function at an address: void task(intp thread, intp start, intp count, void *data), which runs k from start on."""

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [cgutils.intp_t] * 4)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), generate


@body
def _seat(state, thread):
    return state + SEATS + thread * LINE


@body
def _rouse(seat):
    if load(seat + ASLEEP) and swap(seat + ASLEEP, 0):
        wake(load(seat + LOCK))


@body
def _take_tickets(state, thread):
    """Do what there is to do; the number of tickets that this thread took."""
    taken, sharers = 0, load(state + SHARERS)
    for i in range(sharers):
        cell = _seat(state, (thread + i) % sharers) + RANGE
        while True:
            tickets = load(cell)
            ticket, end = tickets & 0xFFFF, tickets >> 16 & 0xFFFF
            if ticket >= end:
                break
            if replace(cell, tickets, tickets + 1):
                count, parts = load(state + COUNT), load(state + PARTS)
                start = ticket * count // parts
                _call(load(state + TASK), thread, start, (ticket + 1) * count // parts - start, load(state + DATA))
                taken += 1
    return taken


def _run(task, count, data):
    """Run task for all k in range(count), and return when it is done."""
    state = _state()
    threads = min(_wanted(), load(state + THREADS))
    if threads <= 1 or swap(state + BUSY, 1):
        _call(task, 0, 0, count, data)
        return
    parts = min(count, TICKETS)
    store(state + TASK, task)
    store(state + DATA, data)
    store(state + COUNT, count)
    store(state + PARTS, parts)
    store(state + SHARERS, threads)
    store(state + DONE, 0)
    generation = (load(state + GENERATION) + 1) % GENERATIONS
    for t in range(threads):
        store(_seat(state, t) + RANGE, generation << 32 | (t + 1) * parts // threads << 16 | t * parts // threads)
    store(state + GENERATION, generation)
    for t in range(1, threads):
        _rouse(_seat(state, t))

    add(state + DONE, _take_tickets(state, 0))
    seat, spins = _seat(state, 0), 0
    while load(state + DONE) < parts:
        pause()
        spins += 1
        if spins == SPINS:
            spins = 0
            store(seat + ASLEEP, 1)
            # Who took the last ticket either sees that this thread is asleep, or was done before.
            if load(state + DONE) < parts or not swap(seat + ASLEEP, 0):
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
                taken = _take_tickets(state, thread)
                if taken > 0:
                    parts = load(state + PARTS)  # before they are done, for then the next job may come
                    if add(state + DONE, taken) == parts:
                        _rouse(_seat(state, 0))
        else:
            pause()
            spins += 1
            if spins % SPINS_BETWEEN == 0:
                give_way()
            if spins == SPINS:
                spins = 0
                store(seat + ASLEEP, 1)
                waits = load(state + GENERATION) == seen and load(state + THREADS) > 0
                if waits or not swap(seat + ASLEEP, 0):
                    sleep(load(seat + LOCK))


# --------------------------------------------------------------------------------------------------- Python

_size = SEATS + LINE * config.NUMBA_NUM_THREADS
_memory = ctypes.create_string_buffer(_size + LINE)
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_memory))  # it outlives this module: threads may
_start = -(-ctypes.addressof(_memory) // LINE) * LINE
_allocate_lock = ctypes.PYFUNCTYPE(ctypes.c_void_p)(("PyThread_allocate_lock", ctypes.pythonapi))
_acquire_lock = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)(("PyThread_acquire_lock", ctypes.pythonapi))
_release_lock = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(("PyThread_release_lock", ctypes.pythonapi))
_running: list[threading.Thread] | None = None


def _number(offset):
    return ctypes.c_ssize_t.from_address(_start + offset)


@cache
def _compiled():
    """What callers run, known by its name to machine code on disk, too, and what threads run."""
    _launch_threads()  # Numba's, for numba.set_num_threads: they are never given anything to do
    llvm.add_symbol("nbnet_threads", _start)
    run = c_function(types.void(*[types.intp] * 3))(_run)
    llvm.add_symbol("nbnet_parallel_for", run.address)
    return run, c_function(types.void(types.intp))(_take_part)


def start():
    """Start the threads of this process, unless it has them. Without them, loops run on the caller's."""
    global _running
    if _running is not None:
        return
    with global_compiler_lock:  # Numba's: one of our own would be taken before it here, and after it where a loop is compiled
        if _running is not None:
            return
        _, take_part = _compiled()
        for t in range(config.NUMBA_NUM_THREADS):
            lock = _allocate_lock()
            _acquire_lock(lock, 1)
            _number(SEATS + t * LINE + LOCK).value = lock
        _number(THREADS).value = 1
        numbers = range(1, config.NUMBA_NUM_THREADS)
        threads = [threading.Thread(target=take_part.ctypes, args=(t,), name=f"nbnet-{t}", daemon=True) for t in numbers]
        for thread in threads:
            thread.start()
        _number(THREADS).value = config.NUMBA_NUM_THREADS
        _running = threads


@atexit.register
def _stop():
    """Let the threads end before the machine code goes away that they run."""
    _number(THREADS).value = 0
    for t, thread in enumerate(_running or (), 1):
        while thread.is_alive():
            seat = SEATS + t * LINE
            if _number(seat + ASLEEP).value:
                _number(seat + ASLEEP).value = 0
                _release_lock(_number(seat + LOCK).value)
            thread.join(0.001)


def _after_fork():
    """In a forked child, which has the memory but not the threads."""
    global _running
    ctypes.memset(_start, 0, _size)
    _running = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
