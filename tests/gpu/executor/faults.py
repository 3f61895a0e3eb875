"""Faults of kernels in words: kernel, block, thread, array and line."""

from .checks import Place

ACCESSES = ("a read", "a write", "an atomic operation")
PAST = ("read", "wrote", "changed atomically")


class KernelFault(Exception):
    """A kernel did what no GPU defines. Nothing that it wrote may be trusted."""


def _beyond(fault, array):
    where = f"{-fault.offset} bytes before" if fault.offset < 0 else f"{fault.offset - array.nbytes} bytes after the end of"
    where = "across the end of" if 0 <= fault.offset < array.nbytes else where
    index = f", at index {fault.offset // array.itemsize}" if array.itemsize else ""
    return f"{{access}} of {fault.size} bytes {where} {array}{index}"


def _misaligned(fault, array):
    return f"{{access}} of {fault.size} bytes at byte {fault.offset} of {array}, which is not aligned"


def _race(fault, array):
    return (
        f"{{access}} of {array}{_index(fault, array)}, which thread {{other_thread}} {PAST[fault.other_access]} "
        f"without a barrier between them, {{other_place}}"
    )


def _race_of_blocks(fault, array):
    return f"{{access}} of {array}{_index(fault, array)}, which another block {PAST[fault.other_access]}, {{other_place}}"


def _unwritten(fault, array):
    return f"{{access}} of {array}{_index(fault, array)}, to which nothing has been written"


def _diverged(fault, array):
    return "a barrier that thread {other_thread} does not reach: it {waits}"


def _lanes_missing(fault, array):
    return "a shuffle or barrier of a warp that its thread {other_thread} does not reach: it {waits}"


def _no_lane(fault, array):
    return "a shuffle from thread {other_thread}, which is not there or not in the mask"


def _constant(fault, array):
    return f"{{access}} of {array}, which is constant"


# In the order of the runtime's numbers.
FAULTS = (None, _beyond, _misaligned, _race, _race_of_blocks, _unwritten, _diverged, _lanes_missing, _no_lane, _constant)


def _index(fault, array):
    return f" at index {fault.offset // array.itemsize}" if array.itemsize else f" at byte {fault.offset}"


class Named:
    """An array of a launch, as messages name it."""

    def __init__(self, name, nbytes, itemsize, what):
        self.name, self.nbytes, self.itemsize, self.what = name, nbytes, itemsize, what

    def __str__(self):
        return f"{self.what} {self.name} ({self.nbytes} bytes)"


def describe(fault, kernel, block, arrays, places):
    """One line about a report of the runtime.

    Args:
        kernel: its name. block: its shape. arrays: those of the launch, in the order of the runtime's regions. places: of the kernel.
    """

    def thread(number):
        return f"({number % block[0]}, {number // block[0] % block[1]}, {number // block[0] // block[1]})"

    def place(number) -> Place | str:
        return (places[number] if 0 <= number < len(places) else None) or "at a line that is not known"

    array = arrays[fault.region] if fault.region >= 0 else Named("of unknown place", 0, 0, "memory")
    waits = "has ended" if fault.other_site < 0 else f"waits at {place(fault.other_site)}"
    words = FAULTS[fault.kind](fault, array).format(
        access=ACCESSES[fault.access], other_thread=thread(fault.other_thread), other_place=place(fault.other_site), waits=waits
    )
    return f"kernel {kernel}, block {tuple(fault.block)}, thread {thread(fault.thread)}: {words}; {place(fault.site)}"
