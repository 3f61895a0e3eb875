"""What a file may contain: one schema per kind of file, made of small checks.

    CONFIG = record(epochs=whole(1), lr=number(above=0), size=optional(rows(whole(1), 2, 2)), backend=one_of(BACKENDS))
    config = parse(text, CONFIG, f"{path} is damaged", CheckpointError)

A check takes a value and where it is, and returns the value or raises Unfit. A record has all of its keys and no other.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
import sys
from collections.abc import Callable, Collection
from numbers import Integral, Real
from typing import Any

from nbnet.errors import NbnetError

Check = Callable[[Any, str], Any]

MOST = 1 << 53  # the largest whole number, unless a schema says otherwise; every double up to it is exact
# control characters, and halves of surrogate pairs but those that Python makes of file names that are not text
UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udc7f\udd00-\udfff]")
LONGEST = 255  # characters of a text, unless a schema says otherwise
TOP = "it"  # where a file's whole value is


class Unfit(Exception):
    """A value does not fit its schema: the message says where it is and what it is, `expected` what it should be."""

    def __init__(self, where: str, found: str, expected: str) -> None:
        super().__init__(f"{where} {found}, expected {expected}")
        self.expected = expected


def _unfit(value: Any, where: str, expected: str) -> Unfit:
    try:
        found = reprlib.repr(value)
    except ValueError:  # a whole number with too many digits to be printed
        found = "a number of thousands of digits"
    return Unfit(where, f"is {found}", expected)


def whole(least: int = 0, most: int = MOST) -> Check:
    """A whole number."""

    def check(value: Any, where: str) -> int:
        is_whole = isinstance(value, Integral) and not isinstance(value, bool)
        if is_whole and least <= value <= most:
            return int(value)
        bounds = f"{least} to {most}" if most != MOST or (is_whole and value > most) else f"at least {least}"
        raise _unfit(value, where, f"a whole number, {bounds}")

    return check


def number(least: float = -math.inf, above: float = -math.inf, finite: bool = True, most: float = math.inf) -> Check:
    """A number, of Python or NumPy, as a float. With finite=False also NaN and infinity."""
    bounds = f", at least {least:g}" if least > -math.inf else f" above {above:g}" if above > -math.inf else ""
    bounds += f"{',' if not bounds else ' and'} at most {most:g}" if most < math.inf else ""

    def check(value: Any, where: str) -> float:
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if is_number and (not isinstance(value, Integral) or abs(int(value)) <= sys.float_info.max):
            found = float(value)
            if not finite or (math.isfinite(found) and least <= found <= most and (found > above or above == -math.inf)):
                return found
        raise _unfit(value, where, f"a {'finite ' if finite else ''}number{bounds}")

    return check


def text(longest: int = LONGEST, lines: bool = False) -> Check:
    """A text of one line that can be printed, or of several: a path may have a line break in it."""

    def check(value: Any, where: str) -> str:
        if isinstance(value, str) and len(value) <= longest and not UNPRINTABLE.search(value.replace("\n", "") if lines else value):
            return value
        raise _unfit(value, where, f"{'' if lines else 'a line of '}text, at most {longest:,} characters")

    return check


def one_of(names: Collection[str]) -> Check:
    """One of these texts."""

    def check(value: Any, where: str) -> str:
        if isinstance(value, str) and value in names:
            return value
        raise _unfit(value, where, f"one of {', '.join(names)}")

    return check


def truth(value: Any, where: str) -> bool:
    """True or false."""
    if isinstance(value, bool):
        return value
    raise _unfit(value, where, "true or false")


def either(first: Check, second: Check) -> Check:
    """What one of two checks accepts."""

    def check(value: Any, where: str) -> Any:
        try:
            return first(value, where)
        except Unfit as problem:
            try:
                return second(value, where)
            except Unfit as other:
                raise _unfit(value, where, f"{problem.expected}, or {other.expected}") from None

    return check


def optional(check: Check) -> Check:
    """None, or what the check accepts."""
    return lambda value, where: None if value is None else check(value, where)


def rows(check: Check, least: int = 0, most: int = MOST) -> Check:
    """A list of `least` to `most` values of one kind."""
    sizes = f"at least {least}" if most == MOST else str(most) if least == most else f"{least} to {most:,}"

    def check_all(value: Any, where: str) -> list[Any]:
        if isinstance(value, (list, tuple)) and least <= len(value) <= most:
            return [check(each, f"{where}[{i}]") for i, each in enumerate(value)]
        raise _unfit(value, where, f"a list of {sizes} values")

    return check_all


def mapping(check: Check) -> Check:
    """An object with any keys, whose values are of one kind."""
    check_key = text()

    def check_all(value: Any, where: str) -> dict[str, Any]:
        if isinstance(value, dict):
            return {check_key(name, f"a key of {where}"): check(each, f"{where}.{name}") for name, each in value.items()}
        raise _unfit(value, where, "an object {...}")

    return check_all


def record(**checks: Check) -> Check:
    """An object with exactly these keys."""

    def check_all(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _unfit(value, where, "an object {...}")
        for name in checks:
            if name not in value:
                raise Unfit(where, f"has no {name!r}", f"the keys {', '.join(checks)}")
        for name in value:
            if name not in checks:
                raise Unfit(where, f"has the key {reprlib.repr(name)}", f"only {', '.join(checks)}")
        return {name: check(value[name], name if where == TOP else f"{where}.{name}") for name, check in checks.items()}

    return check_all


def fit(value: Any, check: Check, prefix: str, error: type[NbnetError]) -> Any:
    """The value as the schema returns it.

    Args:
        prefix: how the message begins if it does not fit, such as "config.json is damaged". error: what is raised then.
    """
    try:
        return check(value, TOP)
    except Unfit as problem:
        raise error(f"{prefix}: {problem}") from problem


def parse(text: str | bytes, check: Check, prefix: str, error: type[NbnetError]) -> Any:
    """The value of a JSON text, as the schema returns it. Arguments as in `fit`."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as problem:  # not JSON, not UTF-8, or too deeply nested
        raise error(f"{prefix}: it is not JSON: {problem}") from problem
    return fit(value, check, prefix, error)
