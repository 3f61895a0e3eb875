"""Objects that count changes to their attributes, so that replay notices a changed setting without looking at all of them."""

from __future__ import annotations

import itertools
from typing import Any

ORDER = itertools.count(1)  # next(ORDER) is atomic: larger than all before it, with any number of threads


class Watched:
    """Counts attribute assignments on all of its objects together.

    While `Watched.changes` stays the same, no attribute of any watched object has changed.
    """

    __slots__ = ()
    changes = 0

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        Watched.changes = next(ORDER)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        Watched.changes = next(ORDER)
