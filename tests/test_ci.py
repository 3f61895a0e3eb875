"""The oldest dependencies, which continuous integration installs, are those of pyproject.toml."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_oldest_dependencies():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lists = re.findall(r"^(?:dependencies|test) = \[\n(.*?)^\]", project, re.DOTALL | re.MULTILINE)
    least = dict(re.findall(r'"([\w-]+)(?:\[\w+\])?>=([\d.]+)', "".join(lists)))
    listed = re.findall(r"^([\w-]+)==([\d.]+?)(?:\.\*)?$", (ROOT / ".ci" / "oldest.txt").read_text(encoding="utf-8"), re.MULTILINE)
    oldest = dict(listed)
    assert {"numpy", "numba", "pytest", "numba-cuda"} <= least.keys()
    for name in least.keys() - {"ruff", "mypy"}:  # the tools that run without the package
        assert f"{oldest[name]}.0.".startswith(f"{least[name]}."), name
