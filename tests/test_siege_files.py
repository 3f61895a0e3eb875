"""Damaged files, a few of each kind: tools/siege/files.py goes on as long as one likes."""

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("siege_files", Path(__file__).parents[1] / "tools" / "siege" / "files.py")
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)


@pytest.mark.parametrize("kind", files.KINDS)
def test_damaged_files_are_one_line_of_error_and_change_nothing(kind):
    found = files.KINDS[kind](seed=1, count=100, seconds=60)
    assert found.pop("failures") == []
    assert found["tried"] == 100
    assert found["accepted"] + found["refused"] == 100
    assert found["refused"] > 20


def test_a_siege_says_what_failed():
    def case(rng):
        raise KeyError(rng.randrange(10))

    found = files._besiege("kind", 1, 3, 60, case)
    assert [line.split(": ")[:2] for line in found["failures"]] == [[f"kind 1 {number}", "KeyError"] for number in range(3)]
    assert files._besiege("kind", 1, 3, 60, case) == found
