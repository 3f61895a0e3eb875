"""The oldest dependencies, which continuous integration installs, are those of pyproject.toml."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_oldest_dependencies():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lists = re.findall(r"^(?:dependencies|test) = \[\n(.*?)^\]", project, re.DOTALL | re.MULTILINE)
    least = dict(re.findall(r'"([\w-]+)(?:\[\w+\])?>=([\d.]+)', "".join(lists)))
    lines = (ROOT / ".ci" / "oldest.txt").read_text(encoding="utf-8").splitlines()[1:]
    oldest = dict(line.removesuffix(".*").split("==") for line in lines)
    assert {"numpy", "numba", "pytest", "numba-cuda"} <= least.keys()
    assert {name: f"{version}.0"[: len(oldest.get(name, ""))] for name, version in least.items()} == oldest
