"""What happens when a rank ends: the others learn of it, and one line names it.

A program that ends, by an exception or before the others, tells the other ranks, whose next wait then ends. A rank that is killed can tell
nobody: on Linux a small process on each node, `watcher`, sees it.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

from nbnet.errors import RankError

_open: weakref.WeakSet[Any] = weakref.WeakSet()  # of Ranks
_hooks: list[Any] = []  # the one before, once this process listens; others may come and go
_watchers: list[tuple[str, int]] = []  # the address of this node's watcher, and this process's rank


def watch(ranks: Any) -> None:
    """Tell the other ranks when this process ends, and let the node's watcher know of it. All ranks call this together."""
    _open.add(ranks)
    if _hooks:
        return
    hook = sys.excepthook

    def ended(kind: Any, error: BaseException, trace: Any) -> None:
        for each in [] if isinstance(error, RankError) else list(_open):
            with suppress(Exception):
                each.tell(f"{kind.__name__}: {error}", ended=True)
        hook(kind, error, trace)

    sys.excepthook = ended
    _hooks.append(hook)
    atexit.register(_leave)
    if hasattr(os, "pidfd_open"):
        _start_watcher(ranks)


def _start_watcher(ranks: Any) -> None:
    here = [(rank, name) for rank, name in enumerate(ranks.names) if name.partition(" on ")[2] == socket.gethostname()]
    processes = {rank: int(name.split()[1]) for rank, name in here}
    lead = min(processes)
    address = f"\0nbnet-{processes[lead]}"
    _watchers.append((address, ranks.rank))
    if ranks.rank == lead:
        words = [sys.executable, "-S", "-E", str(Path(__file__).with_name("watcher.py")), address[1:], str(ranks.size)]
        words += [f"{rank}:{process}" for rank, process in processes.items()]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
        process.stdout.readline()  # type: ignore[union-attr]  # it is ready
    ranks.any(False)


def reported() -> None:
    """Tell the watcher that this rank ends, and has said why."""
    for address, rank in _watchers:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(str(rank).encode(), address)


def _leave() -> None:
    """At the end of the program."""
    reported()
    for each in list(_open):
        if each.failed is None:
            with suppress(Exception):
                each.tell("the program has ended there", ended=True)
