"""Schedules of the learning rate: functions of the progress of training, from 0 (first step) to 1 (last step).

    schedule = nb.schedules.one_cycle()
    schedule(progress)   # the factor that multiplies the optimiser's lr

A schedule depends on neither epochs nor the optimiser, so the same one fits any run, and a resumed run continues where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

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


@shown("nb.schedules")
def cosine_restarts(cycles: int = 3, growth: float = 1.0, decay: float = 1.0, final: float = 0.0) -> Schedule:
    """`cycles` half cosines, each from its top to `final` times it   (SGDR: Loshchilov and Hutter 2017).

    Args:
        growth: the length of each cycle relative to the one before, above 0 (in the paper 1 or 2).
        decay: the top of each cycle relative to the one before, above 0; the first is 1.
    """
    cycles = checks.whole(cycles, "cycles")
    growth, decay = (checks.number(value, name, "a number above 0", _positive) for name, value in (("growth", growth), ("decay", decay)))
    lengths = [growth**cycle for cycle in range(cycles)]
    starts = [sum(lengths[:cycle]) / sum(lengths) for cycle in range(cycles + 1)]

    def factor(progress: float) -> float:
        cycle = max(sum(progress >= start for start in starts[:-1]) - 1, 0)
        return _anneal(1.0, final, (progress - starts[cycle]) / (starts[cycle + 1] - starts[cycle])) * decay**cycle

    return factor


@shown("nb.schedules")
def polynomial(power: float = 1.0, final: float = 0.0) -> Schedule:
    """From 1 to `final` along (1 - progress) ^ power; power 1 is a straight line."""
    power = checks.number(power, "power", "a number above 0", _positive)
    return lambda progress: final + (1 - final) * (1 - progress) ** power


@shown("nb.schedules")
def triangular(cycles: int = 1, low: float = 0.1, decay: float = 1.0) -> Schedule:
    """`cycles` times a straight line up from `low` to 1 and one back   (Smith 2017; decay 0.5 is its "triangular2").

    Args:
        decay: the height of each triangle relative to the one before, above 0.
    """
    cycles = checks.whole(cycles, "cycles")
    decay = checks.number(decay, "decay", "a number above 0", _positive)

    def factor(progress: float) -> float:
        cycle = min(int(progress * cycles), cycles - 1)
        return low + (1 - low) * (1 - abs(2 * (progress * cycles - cycle) - 1)) * decay**cycle

    return factor


@shown("nb.schedules")
def piecewise(points: Sequence[tuple[float, float]] = ((0.0, 0.0), (0.3, 1.0), (1.0, 0.0))) -> Schedule:
    """Straight lines between points (progress, factor); the factor of the first one before it, and of the last one after it.

    Two points of the same progress are a jump, to the second.
    """
    if not _are_points(points):
        raise ArgumentError(f"points={points!r}: expected pairs (progress, factor) in order of progress, such as ((0, 1), (1, 0.1))")
    listed = [(float(progress), float(factor)) for progress, factor in points]

    def factor(progress: float) -> float:
        after = sum(progress >= at for at, _ in listed)
        if after in (0, len(listed)):
            return listed[max(after - 1, 0)][1]
        (start, first), (stop, last) = listed[after - 1 : after + 1]
        return first + (last - first) * (progress - start) / (stop - start)

    return factor


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "cosine": cosine,
    "step": step,
    "one_cycle": one_cycle,
    "warm_up": warm_up,
    "cosine_restarts": cosine_restarts,
    "polynomial": polynomial,
    "triangular": triangular,
    "piecewise": piecewise,
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


def _positive(number: float) -> bool:
    return 0 < number < math.inf


def _are_points(points: object) -> bool:
    """Whether these are pairs of finite numbers whose first ones do not fall."""
    if not isinstance(points, Sequence) or not points or not all(isinstance(each, Sequence) and len(each) == 2 for each in points):
        return False
    if not all(checks.is_number(number) and math.isfinite(number) for each in points for number in each):
        return False
    return all(before[0] <= after[0] for before, after in pairwise(points))


def _check_fractions(name: str, values: Sequence[float]) -> None:
    for value in values:
        checks.number(value, name, "a fraction of training between 0 and 1, both excluded", lambda fraction: 0 < fraction < 1)
