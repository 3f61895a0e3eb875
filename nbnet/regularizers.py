"""Regularizers: penalties on a parameter. The Trainer adds their gradient to the loss's; reported losses exclude them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nbnet.code_repr import shown
from nbnet.functional import checks

Regularizer = Callable[[np.ndarray], np.ndarray]


@shown("nb.regularizers")
def l2(strength: float) -> Regularizer:
    """Penalty strength * sum(value^2), the convention of Keras: the gradient is 2 * strength * value."""
    _check(strength)
    return lambda value: 2 * strength * value


@shown("nb.regularizers")
def l1(strength: float) -> Regularizer:
    """Penalty strength * sum(|value|): the gradient is strength * sign(value)."""
    _check(strength)
    return lambda value: strength * np.sign(value)


def _check(strength: float) -> None:
    checks.number(strength, "strength", "a number that is at least 0", lambda strength: 0 <= strength < float("inf"))
