"""Launches and copies on the one stream of nbnet, and recordings of them.

A recording notes every launch and copy while it is made: kernel, grid, block and arguments. All memory of the work comes from blocks that
the recording keeps, so addresses stay what they are, and the list can be played again, or captured as a CUDA graph. What changes from one
time to the next is in arrays that are uploaded before: the slots of the recording.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from nbnet.errors import BackendError
from nbnet.kernels.gpu.compile import configured

CHUNK = 1 << 16  # bytes at least of the memory that slots share, so that one upload fills many
SLOT = 16  # bytes: slots begin at multiples, so that 128-bit loads work


@cache
def stream() -> Any:
    """The one stream."""
    return cuda.stream()


@cache
def copy_stream() -> Any:
    """The stream of uploads that run in parallel with kernels."""
    return cuda.stream()


def synchronize() -> None:
    """Wait until all launched work is done."""
    stream().synchronize()


class Changed(Exception):
    """Work that was recorded makes other launches this time."""


class Launch(NamedTuple):
    kernel: Any
    grid: Any
    block: Any
    args: tuple[Any, ...]

    def play(self, on: Any) -> None:
        configured(self.kernel, self.grid, self.block, on)(*self.args)


class Copy(NamedTuple):
    source: Any
    target: Any

    def play(self, on: Any) -> None:
        self.target.copy_to_device(self.source, stream=on)


class Slot:
    """An array on the GPU that is uploaded before each time, from an array on the host."""

    def __init__(self, host: np.ndarray, flat: Any, chunk: int, offset: int) -> None:
        self.host, self.flat, self.chunk, self.offset = host, flat, chunk, offset


class _Kept(list):
    """Free blocks of one size that a recording has; they return to the pool when neither it nor an array needs them."""

    def __init__(self, home: list) -> None:
        super().__init__()
        self.home = home

    def __del__(self) -> None:
        self.home.extend(self)


class Recording:
    """Launches and copies in order.

    Work is recorded within `with recording:`. Its parts whose Python has to run each time, since they upload numbers, are within
    `with recording.section(name):`. Once recorded, a section notes nothing: it compares, and takes the new numbers.

    Attributes:
        calls: the launches and copies. slots: what is uploaded before them. host_calls: functions and arguments, of what the host
            computes before the upload. complete: whether the work was recorded to its end.
    """

    def __init__(self) -> None:
        self.calls: list[Launch | Copy] = []
        self.slots: list[Slot] = []
        self.host_calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.complete = False
        self._free: dict[int, _Kept] = {}
        self._chunks: list[Any] = []  # flat arrays of bytes that the slots lie on
        self._filled = 0  # bytes of the last chunk
        self._sections: dict[str, tuple[int, int, int, int]] = {}  # first and end of its calls, and of its slots
        self._section: str | None = None
        self._strict = False
        self._kept: list[Any] = []  # what has to live as long
        self._at = [0, 0]  # in a section that is compared: the next call and slot

    def __enter__(self) -> Recording:
        self._token = _active.set(self)
        return self

    def __exit__(self, kind: Any, *error: Any) -> None:
        _active.reset(self._token)
        self.complete = kind is None

    @property
    def under_way(self) -> bool:
        """Whether launches are noted, and not compared."""
        return not self.complete

    @property
    def in_section(self) -> bool:
        return self._section is not None

    @contextmanager
    def section(self, name: str, strict: bool = False) -> Iterator[None]:
        """A part whose Python runs each time.

        Args:
            strict: whether its launches must have the same arrays, or only arrays of the same size.
        Raises:
            Changed: it makes other launches than it did when it was recorded.
        """
        first = [len(self.calls), len(self.slots)]
        again, self._section, self._strict = self.complete, name, strict
        token = _active.set(self)
        try:
            if again:
                first_call, end_call, first_slot, end_slot = self._sections[name]
                self._at = [first_call, first_slot]
            yield
            if not again:
                self._sections[name] = (first[0], len(self.calls), first[1], len(self.slots))
            elif self._at != [end_call, end_slot]:
                raise Changed(f"{name}: fewer launches or uploads than were recorded")
        finally:
            self._section = None
            _active.reset(token)

    def free(self, size: int, home: list) -> _Kept:
        """The free blocks of this size. home: those of the pool."""
        if size not in self._free:
            self._free[size] = _Kept(home)
        return self._free[size]

    def note(self, call: Launch | Copy) -> bool:
        """Whether to make a call now."""
        if not self.complete:
            self.calls.append(call)
            return True
        at = self._at[0]
        self._at[0] += 1
        if at >= self._sections[str(self._section)][1] or not _same(self.calls[at], call, self._strict):
            raise Changed(f"{self._section}: another launch than was recorded")
        return False

    def slot(self, host: np.ndarray, empty: Callable[[int], Any]) -> Any:
        """A flat array on the GPU for an array of the host, whose numbers are uploaded each time: in a section those of another array.

        Args:
            empty: bytes -> array on the GPU of so many.
        """
        if self.complete:
            at = self._at[1]
            self._at[1] += 1
            if at >= self._sections[str(self._section)][3]:
                raise Changed(f"{self._section}: more uploads than were recorded")
            slot = self.slots[at]
            if (slot.host.size, slot.host.dtype) != (host.size, host.dtype):
                raise Changed(f"{self._section}: an upload of another size than was recorded")
            slot.host = host
            return slot.flat
        size = -(-max(host.nbytes, 1) // SLOT) * SLOT
        if not self._chunks or self._filled + size > self._chunks[-1].size:
            self._kept.append(empty(max(CHUNK, size)))
            self._chunks.append(self._kept[-1].flat)
            self._filled = 0
        start = self._filled
        self._filled += size
        flat = self._chunks[-1][start : start + max(host.nbytes, host.itemsize)].view(host.dtype)
        self.slots.append(Slot(host, flat, len(self._chunks) - 1, start))
        return flat

    def upload(self, send: Callable[[np.ndarray, Any], Any]) -> None:
        """Upload the slots as the host has them now.

        Args:
            send: (bytes, flat array) copies them there; the bytes may be changed afterwards.
        """
        ends: dict[int, int] = {}
        for slot in self.slots:
            ends[slot.chunk] = max(ends.get(slot.chunk, 0), slot.offset + slot.host.nbytes)
        for chunk, end in ends.items():
            packed = np.zeros(end, np.uint8)
            for slot in self.slots:
                if slot.chunk == chunk:
                    packed[slot.offset : slot.offset + slot.host.nbytes] = np.ascontiguousarray(slot.host).reshape(-1).view(np.uint8)
            send(packed, self._chunks[chunk][:end])

    def compute_on_host(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function of the host now, and before each upload from now on."""
        function(*args)
        self.host_calls.append((function, args))

    def play(self, on: Any) -> None:
        """Make the launches and copies again, on a stream."""
        for call in self.calls:
            call.play(on)


def _same(recorded: Launch | Copy, now: Launch | Copy, strict: bool) -> bool:
    """Whether two calls are the same; if not strict, arrays may have other addresses."""
    if isinstance(recorded, Copy) or isinstance(now, Copy):
        return type(recorded) is type(now) and all(_alike(a, b, strict) for a, b in zip(recorded, now))
    if (recorded.kernel, recorded.grid, recorded.block) != (now.kernel, now.grid, now.block) or len(recorded.args) != len(now.args):
        return False
    return all(_alike(a, b, strict) for a, b in zip(recorded.args, now.args))


def _alike(a: Any, b: Any, strict: bool) -> bool:
    if hasattr(a, "copy_to_device"):
        return a is b or (not strict and hasattr(b, "copy_to_device") and (a.size, a.dtype) == (b.size, b.dtype))
    return type(a) is type(b) and bool(a == b)


_active: ContextVar[Recording | None] = ContextVar("_active", default=None)


def active() -> Recording | None:
    """The recording that is under way in this thread."""
    return _active.get()


@contextmanager
def unrecorded() -> Iterator[None]:
    """Within this block nothing is recorded, and memory is not that of a recording."""
    token = _active.set(None)
    try:
        yield
    finally:
        _active.reset(token)


def launch(compiled: Any, grid: Any, block: Any, *args: Any) -> None:
    """Launch a kernel on flat arrays and numbers."""
    recording = _active.get()
    call = Launch(compiled, grid, block, args)
    if recording is None or recording.note(call):
        call.play(stream())


def copy(source: Any, target: Any) -> None:
    """Copy a flat array on the GPU to another one."""
    if not math.prod(target.shape):
        return
    recording = _active.get()
    if recording is None or recording.note(Copy(source, target)):
        target.copy_to_device(source, stream=stream())


def refuse_download() -> None:
    """Say that work which is recorded must not copy to the host.

    Raises:
        BackendError: a recording is under way.
    """
    if _active.get() is not None:
        raise BackendError(
            "a step that becomes a CUDA graph copied an array to the host, expected kernels alone: use Trainer(graph=False), "
            "or leave out what computes on the host"
        )
