"""Schedules of the learning rate: functions of the progress of training, from 0 (first step) to 1 (last step).

    schedule = nb.schedules.one_cycle()
    schedule(progress)   # the factor that multiplies the optimiser's lr

A schedule depends on neither epochs nor the optimiser, so the same one fits any run, and a resumed run continues where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from nbnet.code_repr import shown
from nbnet.errors import ArgumentError, unknown
from nbnet.functional import checks

Schedule = Callable[[float], float]


@shown("nb.schedules")
def constant() -> Schedule:
    """The same rate throughout."""
    return lambda progress: 1.0


@shown("nb.schedules")
def cosine(final: float = 0.0) -> Schedule:
    """Half a cosine from 1 to `final`   (Loshchilov and Hutter 2017)."""
    return lambda progress: _anneal(1.0, final, progress)


@shown("nb.schedules")
def step(at: Sequence[float] = (0.5, 0.75), factor: float = 0.1) -> Schedule:
    """Multiply by `factor` at each of the given points of training, from 0 to 1."""
    _check_fractions("at", at)
    return lambda progress: factor ** sum(progress >= point for point in at)


@shown("nb.schedules")
def one_cycle(warm: float = 0.3, start: float = 1 / 25, final: float = 1e-4) -> Schedule:
    """A cosine up from `start` to 1 over the first `warm` of training, then down to start * final.

    Smith and Topin 2019; shape and defaults of PyTorch's OneCycleLR (its max_lr is the optimiser's lr here), without its
    cycle of momentum.
    """
    _check_fractions("warm", [warm])
    return lambda progress: (
        _anneal(start, 1.0, progress / warm) if progress < warm else _anneal(1.0, start * final, (progress - warm) / (1 - warm))
    )


@shown("nb.schedules")
def warm_up(fraction: float = 0.05, then: Schedule | None = None) -> Schedule:
    """A straight line from 0 to 1 over the first `fraction` of training, then the schedule `then` (constant) over the rest."""
    _check_fractions("fraction", [fraction])
    rest = then or constant()
    return lambda progress: progress / fraction if progress < fraction else rest((progress - fraction) / (1 - fraction))


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "cosine": cosine,
    "step": step,
    "one_cycle": one_cycle,
    "warm_up": warm_up,
}


def get(schedule: str | Schedule | None) -> Schedule:
    """The schedule of this name with its defaults, or the function itself; None is constant."""
    if schedule is None:
        return constant()
    if callable(schedule):
        return schedule
    if not isinstance(schedule, str) or schedule not in SCHEDULES:
        raise ArgumentError(unknown("schedule", schedule, SCHEDULES))
    return SCHEDULES[schedule]()


def _anneal(first: float, last: float, progress: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2


def _check_fractions(name: str, values: Sequence[float]) -> None:
    for value in values:
        checks.number(value, name, "a fraction of training between 0 and 1, both excluded", lambda fraction: 0 < fraction < 1)
