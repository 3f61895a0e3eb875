"""A 3-layer tanh network in PyTorch, timed in turns with nbnet's; only where torch is installed."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from nbnet.demos.drawing import spread

ROUNDS, BLOCK = 9, 20  # blocks of steps, in turns so that a busy moment affects all


Stepper = Callable[[], float]  # makes one training step, returns its loss


def measure(
    ours: dict[str, Stepper], x: np.ndarray, y: np.ndarray, units: int, lr: float, backend: str, rounds: int = ROUNDS, block: int = BLOCK
) -> dict[str, Any] | None:
    """Milliseconds per training step of nbnet and PyTorch: median and range of the blocks; None where torch is not installed.

    PyTorch runs eagerly with its own BatchNorm1d, on as many threads as nbnet.

    Args:
        ours: nbnet's steps, "without" and "with" batch norm. x, y, units, lr: what PyTorch's twin needs. backend: nbnet's.
        rounds: how often all take turns, for `block` steps each.
    """
    if importlib.util.find_spec("torch") is None:
        return None
    import numba

    torch = importlib.import_module("torch")
    steps = {f"nbnet_{key}": step for key, step in ours.items()}
    steps |= {f"pytorch_{key}": _torch_stepper(torch, key == "with", x, y, units, lr) for key in ours}
    before, threads = torch.get_num_threads(), numba.get_num_threads() if backend == "parallel" else 1
    times: dict[str, list[float]] = {name: [] for name in steps}
    torch.set_num_threads(threads)
    try:
        for turn in range(rounds + 1):
            for name, step in steps.items():
                began = time.perf_counter()
                for _ in range(block):
                    step()
                if turn:  # the first compiles and warms up
                    times[name].append(1e3 * (time.perf_counter() - began) / block)
    finally:
        torch.set_num_threads(before)
    return {"unit": "ms a step", "pytorch": torch.__version__, "threads": threads} | {key: spread(each) for key, each in times.items()}


def _torch_stepper(torch: Any, batch_norm: bool, x: Any, y: Any, units: int, lr: float) -> Stepper:
    nn, kind = torch.nn, torch.float64
    norm = [nn.BatchNorm1d(units, eps=1e-6, momentum=0.1, dtype=kind)] if batch_norm else []
    layers = [nn.Linear(x.shape[1], units, dtype=kind), *norm, nn.Tanh(), nn.Linear(units, y.shape[1], dtype=kind)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    x, y = torch.from_numpy(x), torch.from_numpy(y)

    def step() -> float:
        loss = ((model(x) - y) ** 2).sum() / len(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def sentences(found: dict[str, Any] | None, epochs: int) -> list[str]:
    """The times in words."""
    if found is None:
        return []
    step = {key: found[key]["median"] for key in ("nbnet_without", "nbnet_with", "pytorch_without", "pytorch_with")}
    ours, theirs = (epochs * (step[f"{name}_without"] + step[f"{name}_with"]) / 1e3 for name in ("nbnet", "pytorch"))
    return [
        f"At this speed, {epochs:,} epochs each without and with batch norm take {ours:.0f} s, and {theirs:.0f} s in "
        f"PyTorch {found['pytorch']} ({step['nbnet_without']:.2f} and {step['nbnet_with']:.2f} ms a step, against "
        f"{step['pytorch_without']:.2f} and {step['pytorch_with']:.2f}; threads: {found['threads']}; blocks of {BLOCK} steps in turn)."
    ]
