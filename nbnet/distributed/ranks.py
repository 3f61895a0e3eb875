"""The ranks of a run, and the messages between them: all of MPI that nbnet uses.

Every message is a pair of a non-blocking send and receive, and whoever waits also listens for a rank that has failed. So a failure on one
rank ends the wait of all others, and nothing hangs.
"""

from __future__ import annotations

import os
import pickle
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, TypeVar

import numba
import numpy as np

from nbnet.distributed import faults
from nbnet.errors import ArgumentError, ExtraError, NbnetError, RankError, first_line
from nbnet.kernels.cpu import threads
from nbnet.runtime.processors import processors

Result = TypeVar("Result")
_ALONE: AbstractContextManager[None] = nullcontext()
_processors: list[tuple[int, int, int]] = []  # what share_processors has found
BETWEEN = 200  # tests of a request between two looks for failures
PATIENCE = 2000  # tests after which a waiting rank gives up its processor between tests
TOGETHER = 1.0  # seconds in which ranks that fail alike fail
TAGS = 30000  # MPI guarantees tags up to 32767


def world() -> Any:
    """MPI.COMM_WORLD of mpi4py.

    Raises:
        ExtraError: mpi4py is not installed, or finds no MPI.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise ExtraError(f"training on several ranks needs mpi4py and an MPI ({first_line(error)}): pip install 'nbnet[mpi]'") from error
    return MPI.COMM_WORLD


class Ranks:
    """The ranks that train together; one if comm is None.

    Attributes:
        rank, size: as MPI has them. messages, bytes: that this rank has sent so far.
    """

    def __init__(self, comm: Any = None) -> None:
        self.rank: int = 0 if comm is None else comm.Get_rank()
        self.size: int = 1 if comm is None else comm.Get_size()
        self.messages = self.bytes = 0
        self.turn = 0  # counts the calls that all ranks make together; messages of an earlier one are not for a later one
        self.failed: str | None = None
        self._sent: list[Any] = []
        self._depth = 0
        self._news: list[tuple[int, int, str, bool]] = []  # failures of others
        if self.size & (self.size - 1):
            most = 1 << (self.size.bit_length() - 1)
            error = ArgumentError(f"got {self.size} ranks, expected a power of two, since sums follow a binary tree: mpiexec -n {most}")
            error.is_said = self.rank == 0  # type: ignore[attr-defined]
            raise error
        self.distances = [1 << level for level in range(self.size.bit_length() - 1)]  # in a tree of pairs
        if self.size > 1:
            from mpi4py import MPI

            self._mpi = MPI
            self.comm, self.control = comm.Dup(), comm.Dup()
            self.names = self.gather(f"process {os.getpid()} on {socket.gethostname()}")
            faults.watch(self)
            share_processors(comm)

    def __deepcopy__(self, memo: Any) -> Ranks:
        """A copy is alone: nobody answers it."""
        return Ranks()

    def __reduce__(self) -> tuple[Any, ...]:
        return Ranks, ()

    def name(self, rank: int) -> str:
        return f"rank {rank} of {self.size} ({self.names[rank]})"

    # --------------------------------------------------------------------------------------------------- messages

    def swap(self, partner: int, mine: np.ndarray, theirs: np.ndarray) -> None:
        """Send an array to another rank, and receive one like it."""
        self.wait(self.start(partner, mine, theirs))

    def start(self, partner: int, mine: np.ndarray, theirs: np.ndarray, tag: int = 0) -> list[Any]:
        """Begin to send one array and to receive another; they stay as they are until both requests are done.

        Args:
            tag: tells messages apart that are under way together, below 3,000.
        """
        self.messages += 1
        self.bytes += mine.nbytes
        tag += self.turn % 8 * (TAGS // 8)
        return [self.comm.Irecv(_bytes(theirs), partner, tag), self.comm.Isend(_bytes(mine), partner, tag)]

    def is_done(self, requests: list[Any]) -> bool:
        done: bool = self._mpi.Request.Testall(requests)
        return done

    def wait(self, requests: list[Any]) -> None:
        """Wait until requests are done. Raises RankError: another rank has failed."""
        tests = 0
        try:
            while not self._mpi.Request.Testall(requests):
                tests += 1
                if tests % BETWEEN == 0:
                    self.check()
                    if tests > PATIENCE:
                        time.sleep(0.0001 if tests > 50 * PATIENCE else 0)
        except self._mpi.Exception as error:
            raise RankError(f"rank {self.rank} of {self.size} lost another one: {first_line(error)}") from error

    def gather(self, value: Any) -> list[Any]:
        """One object of each rank, in order."""
        held = {self.rank: value}
        for distance in self.distances:
            data = np.frombuffer(pickle.dumps(held), np.uint8)
            partner, length = self.rank ^ distance, np.empty(1, np.int64)
            self.swap(partner, np.array([len(data)]), length)
            other = np.empty(int(length[0]), np.uint8)
            self.swap(partner, data, other)
            held |= pickle.loads(other.tobytes())
        return [held[rank] for rank in range(self.size)]

    # ----------------------------------------------------------------------------------------------------- faults

    def check(self) -> None:
        """Raises RankError: another rank has failed in this call, or has ended."""
        while self.control.Iprobe():
            self._news.append(self.control.recv())
        self._news = [each for each in self._news if each[0] >= self.turn or each[3]]
        for turn, rank, text, ended in self._news:
            if turn < self.turn if ended else turn == self.turn:
                self.failed = self.failed or text
                raise RankError(text, None if ended else rank)

    def is_common(self, text: str) -> bool:
        """Whether all other ranks fail with the same text as this one, which they say within a second."""
        same, until = {self.rank}, time.monotonic() + TOGETHER
        while len(same) < self.size and time.monotonic() < until:
            with suppress(RankError):
                self.check()
            same |= {rank for _, rank, said, _ in self._news if said == f"{self.name(rank)}: {text}"}
            time.sleep(0.001)
        return len(same) == self.size

    def fail(self, error: BaseException) -> None:
        """Tell all other ranks that this one has ended the call with an error."""
        if self.size > 1 and self.failed is None and not isinstance(error, RankError):
            text = " ".join(str(error).split()) if isinstance(error, NbnetError) else first_line(error)
            self.tell(text)

    def tell(self, text: str, ended: bool = False) -> None:
        """Tell all other ranks that this one has failed in this call; or, ended, that it takes part in no later one."""
        self.failed = f"{self.name(self.rank)}: {text}"
        for other in range(self.size):
            if other != self.rank:
                self._sent.append(self.control.isend((self.turn, self.rank, self.failed, ended), other))

    def together(self) -> AbstractContextManager[None]:
        """A context that all ranks enter at the same place: an exception in one of them ends the others with RankError."""
        return _ALONE if self.size == 1 else self._together()

    @contextmanager
    def _together(self) -> Iterator[None]:
        if self._depth == 0:
            self.turn += 1
            self.failed = None
        self._depth += 1
        try:
            yield
        except BaseException as error:
            if not getattr(error, "agreed", False):
                self.fail(error)
            raise
        finally:
            self._depth -= 1

    def first(self, function: Callable[[], Any]) -> None:
        """Call a function on the first rank alone; all wait until it is done."""
        if self.rank == 0:
            function()
        if self.size > 1:
            self.any(False)

    def of_first(self, function: Callable[[], Result]) -> Result:
        """What a function returns on the first rank, where alone it is called."""
        found: Result = self.gather(function() if self.rank == 0 else None)[0]
        return found

    def any(self, value: bool) -> bool:
        """Whether it is true on any rank."""
        mine, theirs = np.array([value]), np.array([False])
        for distance in self.distances:
            self.swap(self.rank ^ distance, mine, theirs)
            mine = mine | theirs
        return bool(mine[0])

    def dealt(self, results: Iterable[Result]) -> Iterator[Result]:
        """The results of all ranks, where this one has every size-th, from its own number on."""
        if self.size == 1:
            yield from results
            return
        found = self.gather(list(results))
        for number in range(sum(map(len, found))):
            yield found[number % self.size][number // self.size]

    def same(self, facts: dict[str, Any], what: str) -> None:
        """Check that all ranks have the same facts, by name. Raises RankError: it names one that differs from most."""
        found = self.gather(facts)
        for name in dict.fromkeys(name for each in found for name in each):
            values = [each.get(name) for each in found]
            usual = max(values, key=values.count)  # the first, of equally many
            for rank, value in enumerate(values):
                if value != usual:
                    raise RankError(f"{self.name(rank)} has another {what}: got {name} {value}, expected {usual} as on the others", 0)


def _bytes(array: np.ndarray) -> Any:
    return array.reshape(-1).view(np.uint8)


def share_processors(comm: Any) -> tuple[int, int, int]:
    """Let this rank use the processors of its node divided by the ranks there, unless NUMBA_NUM_THREADS says how many threads it has.

    Returns:
        its threads, the processors, and the ranks of the node. All ranks call this together.
    """
    from mpi4py import MPI

    if _processors:
        return _processors[0]
    node = comm.Split_type(MPI.COMM_TYPE_SHARED, key=comm.Get_rank())
    masks = node.allgather(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1)))
    bound = len(set.union(*masks))  # more than each has, where the launcher has bound ranks to processors
    count = bound if bound > len(masks[node.rank]) else processors()
    given = os.environ.get("NUMBA_NUM_THREADS")
    share = max(1, min(threads.LIMIT, int(given) if given else count // node.size))
    threads.at_most(share)
    numba.set_num_threads(share)
    _processors.append((share, count, node.size))
    return _processors[0]


@contextmanager
def speaking(ranks: Ranks) -> Iterator[None]:
    """A context in which an error that ends it has an attribute `is_said`: of the ranks, one prints it."""
    try:
        yield
    except NbnetError as error:
        if ranks.size > 1:
            error.is_said = _is_said(ranks, error)  # type: ignore[attr-defined]
            faults.reported()
        raise


def _is_said(ranks: Ranks, error: NbnetError) -> bool:
    if isinstance(error, RankError):
        return error.speaker in (None, ranks.rank)
    if getattr(error, "agreed", False):
        return ranks.rank == 0
    common = ranks.is_common(" ".join(str(error).split()))
    if not common:
        error.args = (f"{ranks.name(ranks.rank)}: {error}", *error.args[1:])
    return ranks.rank == 0 or not common
