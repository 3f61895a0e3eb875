"""What training on several ranks sends: messages and bytes of a step, counted, and the time of a step."""

from __future__ import annotations

import statistics
import time
from typing import Any

from nbnet.bench import networks, ours
from nbnet.distributed.slicing import SLICES

ROWS, WARM, STEPS = 256, 3, 10  # rows of a batch, and steps before and in a measurement
NAMES = ("five-conv", "mnist-cnn", "digits-cnn", "mobile", "mlp")


def count(name: str, comm: Any, slices: int = SLICES, rows: int = ROWS) -> tuple[float, float, float]:
    """Messages and bytes that this rank sends in a step of a network, and the median of the seconds of a step. All ranks call it."""
    network = networks.NETWORKS[name]
    trainer = ours.trainer(network, "parallel", comm=comm, slices=slices)
    x, y = networks.batch(network, rows)
    seconds = []
    for step in range(WARM + STEPS):
        if step == WARM:
            before = trainer.ranks.messages, trainer.ranks.bytes
        began = time.perf_counter()
        trainer.train_batch(x, y)
        seconds.append(time.perf_counter() - began)
    sent = ((trainer.ranks.messages - before[0]) / STEPS, (trainer.ranks.bytes - before[1]) / STEPS)
    return *sent, statistics.median(seconds[WARM:])


def lines(comm: Any) -> list[str]:
    """A table of all networks. All ranks call it."""
    found = [f"{'network':12} {'messages':>9} {'bytes':>12} {'ms':>8}   of a step of {ROWS} rows, sent by rank 0"]
    for name in NAMES:
        messages, sent, seconds = count(name, comm)
        found.append(f"{name:12} {messages:9.0f} {sent:12,.0f} {1e3 * seconds:8.2f}")
    return found
