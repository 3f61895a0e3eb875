"""A process of its own on each node, run as a file: it says which rank was killed, and ends the others on its node.

MPI launchers end all processes when one is killed, and say which process it was, but not which rank. Its arguments: an address where
ranks tell that they end, the number of ranks, and rank:process for each on this node. It imports nothing of nbnet, and ends with the ranks.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time

GRACE = 3.0  # seconds that other ranks have, after one was killed, to end by themselves


def main() -> None:
    address, size, *ranks = sys.argv[1:]
    processes = {int(rank): int(process) for rank, process in (each.split(":") for each in ranks)}
    said = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    said.setblocking(False)
    poll, watched = select.epoll(), {}
    try:
        said.bind("\0" + address)
        poll.register(said, select.EPOLLIN)  # few messages fit into its queue
        for rank, process in processes.items():
            descriptor = os.pidfd_open(process)
            watched[descriptor] = rank
            poll.register(descriptor, select.EPOLLIN)
    except OSError:  # the ranks are gone, or another watcher is here
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.write(1, b"ready\n")
    left = set()
    while watched:
        ended = [descriptor for descriptor, _ in poll.poll() if descriptor in watched]  # in the order in which they ended
        with contextlib.suppress(OSError):  # there is no other message
            while word := said.recv(16):
                left.add(int(word))
        for descriptor in ended:
            rank = watched.pop(descriptor)
            poll.unregister(descriptor)
            if rank not in left:
                name = f"rank {rank} of {size} (process {processes[rank]} on {socket.gethostname()})"
                os.write(2, f"nbnet: error: {name} was killed or has crashed; all ranks end\n".encode())
                end(list(watched))
                return


def end(descriptors: list[int]) -> None:
    deadline = time.monotonic() + GRACE
    for descriptor in descriptors:
        if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)


if __name__ == "__main__":
    main()
