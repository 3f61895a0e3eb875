"""Groups of parameters with options of their own: {"*.bias": {"lr_scale": 2.0}, "norm*": {"weight_decay": 0.0}}.

A pattern (of the shell: *, ?, [abc]) names a parameter if it fits its whole name, as model.params has it, the start of the name before a
dot, such as "3.dense" (a layer), or one part between dots: "norm*" fits all parameters of the layers norm1 and norm2. Later patterns
override earlier ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any

from nbnet.errors import ArgumentError, unknown
from nbnet.functional import checks

Options = dict[str, Any]
EXAMPLE = 'groups={"*.bias": {"lr_scale": 2.0}}'


def checked(groups: Any, known: Iterable[str]) -> dict[str, Options]:
    """The groups as dicts of their own.

    Args:
        known: names of options that a group may have, beside lr_scale.
    Raises:
        ArgumentError: they are not options by pattern, or an option is unknown.
    """
    if not isinstance(groups, Mapping):
        raise ArgumentError(f"groups={groups!r}: expected options by pattern, such as {EXAMPLE}")
    for pattern, options in groups.items():
        if not isinstance(pattern, str) or not isinstance(options, Mapping):
            raise ArgumentError(f"groups has {pattern!r}: {options!r}, expected options by pattern, such as {EXAMPLE}")
        for name, value in options.items():
            if name not in ("lr_scale", *known):
                raise ArgumentError(f"groups[{pattern!r}]: {unknown('option', name, ('lr_scale', *known))}")
            if name == "lr_scale":
                checks.number(value, "lr_scale", "a number that is at least 0", lambda number: 0 <= number < math.inf)
    return {pattern: dict(options) for pattern, options in groups.items()}


def options_of(name: str, groups: Mapping[str, Options]) -> Options:
    """The options that groups give the parameter of this name."""
    return {option: value for pattern, options in groups.items() if fits(pattern, name) for option, value in options.items()}


def check_patterns(groups: Mapping[str, Options], names: Iterable[str]) -> None:
    """Check that each pattern names a parameter.

    Raises:
        ArgumentError: one does not.
    """
    names = list(names)
    for pattern in groups:
        if not any(fits(pattern, name) for name in names):
            raise ArgumentError(f"groups: {unknown('parameter', pattern, names)}")


def fits(pattern: str, name: str) -> bool:
    """Whether a pattern names this parameter."""
    parts = name.split(".")
    starts = accumulate(parts, "{}.{}".format)
    return any(fnmatchcase(each, pattern) for each in (*parts, *starts))
