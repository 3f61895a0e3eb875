"""Descriptions: long texts that tests compare with files in tests/described/, word by word, and number by number within a tolerance.

`python -m pytest --update FILE` writes the files instead. Read what git says has changed in them.
"""

import re
from difflib import unified_diff
from pathlib import Path

import numpy as np
import pytest
from tolerances import TOLERANCES

FOLDER = Path(__file__).parent / "described"
NUMBER = re.compile(r"(?<![\w.#])-?(?:\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?|nan|inf)(?![\w#])")


def check(config, name, lines, kind="described"):
    """Compare lines with a file, or write it. kind: the tolerance of the numbers."""
    path, text = FOLDER / f"{name}.txt", "".join(f"{line}\n" for each in lines for line in each.rstrip().splitlines() or [""])
    known = path.read_text(encoding="utf-8") if path.is_file() else ""
    if config.getoption("--update"):
        FOLDER.mkdir(exist_ok=True)
        if differences(known, text, kind):  # else only roundings have changed
            path.write_text(text, encoding="utf-8", newline="\n")
        return
    wrong = differences(known, text, kind)
    if wrong:
        pytest.fail(f"{path.name} says something else; if that is right, run this test with --update:\n{wrong}", pytrace=False)


def differences(known, text, kind):
    """The lines that differ by more than roundings of numbers, as a diff; "" if there are none."""
    known, text = known.splitlines(), text.splitlines()
    if len(known) == len(text):
        text = [old if is_same(old, new, kind) else new for old, new in zip(known, text)]
    return "\n".join(list(unified_diff(known, text, "file", "now", lineterm="", n=0))[:60])


def is_same(known, text, kind):
    """Whether two lines have the same words, and about the same numbers."""
    if known == text:
        return True
    if NUMBER.sub("#", known) != NUMBER.sub("#", text):
        return False
    relative, absolute = TOLERANCES[kind]["float64"]
    old, new = (np.array([float(word.replace(",", "")) for word in NUMBER.findall(line)]) for line in (known, text))
    return np.allclose(new, old, relative, absolute, equal_nan=True)
