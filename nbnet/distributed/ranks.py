"""The ranks of a run, and the messages between them: all of MPI that nbnet uses.

Every message is a pair of a non-blocking send and receive, and whoever waits also listens for a rank that has failed. So a failure on one
rank ends the wait of all others, and nothing hangs.
"""

from __future__ import annotations

import os
import pickle
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from nbnet.errors import ArgumentError, ExtraError, NbnetError, RankError, first_line

Result = TypeVar("Result")
BETWEEN = 200  # tests of a request between two looks for failures
PATIENCE = 2000  # tests after which a waiting rank gives up its processor between tests
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
        self.rank, self.size = (0, 1) if comm is None else (comm.Get_rank(), comm.Get_size())
        self.messages = self.bytes = 0
        self.turn = 0  # counts the calls that all ranks make together; messages of an earlier one are not for a later one
        self.failed: str | None = None
        self._sent: list[Any] = []
        if self.size & (self.size - 1):
            most = 1 << (self.size.bit_length() - 1)
            raise ArgumentError(f"got {self.size} ranks, expected a power of two, since sums follow a binary tree: mpiexec -n {most}")
        if self.size > 1:
            from mpi4py import MPI

            self._mpi = MPI
            self.comm, self.control = comm.Dup(), comm.Dup()
            self.names = self.gather(f"process {os.getpid()} on {socket.gethostname()}")

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
        distance = 1
        while distance < self.size:
            data = np.frombuffer(pickle.dumps(held), np.uint8)
            partner, length = self.rank ^ distance, np.empty(1, np.int64)
            self.swap(partner, np.array([len(data)]), length)
            other = np.empty(int(length[0]), np.uint8)
            self.swap(partner, data, other)
            held |= pickle.loads(other.tobytes())
            distance *= 2
        return [held[rank] for rank in range(self.size)]

    # ----------------------------------------------------------------------------------------------------- faults

    def check(self) -> None:
        """Raises RankError: another rank has failed in this call."""
        while self.control.Iprobe():
            turn, rank, text = self.control.recv()
            if turn == self.turn:
                self.failed = text
                raise RankError(text, rank)

    def fail(self, error: BaseException) -> None:
        """Tell all other ranks that this one ends with an error."""
        if self.size == 1 or self.failed is not None or isinstance(error, RankError):
            return
        text = " ".join(str(error).split()) if isinstance(error, NbnetError) else first_line(error)
        self.failed = f"{self.name(self.rank)}: {text}"
        for other in range(self.size):
            if other != self.rank:
                self._sent.append(self.control.isend((self.turn, self.rank, self.failed), other))

    @contextmanager
    def together(self) -> Iterator[None]:
        """A context that all ranks enter at the same place: an exception in one of them ends the others with RankError."""
        if self.size == 1:
            yield
            return
        try:
            yield
        except BaseException as error:
            if not getattr(error, "agreed", False):
                self.fail(error)
            raise

    def begin(self, check: Callable[[], Result]) -> Result:
        """Call a function that sends no messages, at the start of what all ranks do together.

        Raises:
            what it raises, if it raises on this rank. RankError: it has raised on others alone.
        """
        if self.size == 1:
            return check()
        self.turn += 1
        self.failed = None
        error: BaseException | None = None
        result: Any = None
        try:
            result = check()
        except Exception as raised:
            error = raised
        text = "" if error is None else " ".join(str(error).split()) if isinstance(error, NbnetError) else first_line(error)
        found = self.gather(text)
        if error is not None:
            error.agreed = True  # type: ignore[attr-defined]
            error.on_all = all(found)  # type: ignore[attr-defined]
            raise error
        for rank, message in enumerate(found):
            if message:
                raise RankError(f"{self.name(rank)}: {message}", rank)
        return result

    def same(self, facts: dict[str, Any], what: str) -> None:
        """Check that all ranks have the same facts. Raises RankError: it names one that differs from most."""
        if self.size == 1:
            return
        found = self.gather(facts)
        for name in facts:
            values = [each[name] for each in found]
            usual = max(values, key=values.count)  # the first, of equally many
            for rank, value in enumerate(values):
                if value != usual:
                    raise RankError(f"{self.name(rank)} has another {what}: got {name} {value}, expected {usual} as on the others")


def _bytes(array: np.ndarray) -> Any:
    return memoryview(array.reshape(-1).view(np.uint8))


def threads_of_rank(comm: Any, processors: int) -> int:
    """How many threads a rank has: the processors of its node, divided by the ranks there."""
    node = comm.Split_type(_shared(), key=comm.Get_rank())
    return max(1, processors // int(node.Get_size()))


def _shared() -> int:
    from mpi4py import MPI

    return MPI.COMM_TYPE_SHARED
