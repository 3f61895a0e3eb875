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


def test_the_version_and_the_dependencies_are_the_same_everywhere():
    from nbnet.version import __version__

    citation, recipe = ((ROOT / name).read_text(encoding="utf-8") for name in ("CITATION.cff", "conda/recipe.yaml"))
    assert f"\nversion: {__version__}\n" in citation
    assert f"\n  version: {__version__}\n" in recipe
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = re.search(r"^dependencies = \[\n(.*?)^\]", project, re.DOTALL | re.MULTILINE)[1]
    expected = dict(re.findall(r'"([\w-]+)([^"]*)"', needed))
    run = recipe[recipe.index("\n  run:\n") : recipe.index("\ntests:")]
    found = {name.replace("matplotlib-base", "matplotlib"): limits for name, limits in re.findall(r"- ([\w-]+) (\S+)", run)}
    assert found == expected | {"python": re.search(r'requires-python = "(.*)"', project)[1]}


def test_every_extra_is_in_the_messages_and_the_tests():
    """What an error says to install exists, and what an optional part imports is installed for the tests."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = project[project.index("[project.optional-dependencies]") : project.index("[project.scripts]")]
    extras = dict(re.findall(r"^(\w+) = \[(.*?)\]", section, re.DOTALL | re.MULTILINE))
    said = {name for path in (ROOT / "nbnet").rglob("*.py") for name in re.findall(r"nbnet\[(\w+)\]", path.read_text(encoding="utf-8"))}
    assert {"onnx", "sklearn", "convert", "tensorboard", "completion", "cuda"} <= said <= extras.keys()
    for requirement in re.findall(r'"([^"]+)"', extras["mpi"]):  # tests on several ranks are for Linux
        assert f"\"{requirement.partition(';')[0]}; sys_platform == 'linux'\"" in extras["test"], requirement
    for name in said - {"cuda", "cuda13", "mpi"}:
        for requirement in re.findall(r'"([^"]+)"', extras[name]):
            assert f'"{requirement}"' in extras["test"], requirement


def test_the_check_builds_the_site():
    check = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert '-e ".[docs]"' in check
    assert "mkdocs build --strict" in check
    workflow = (ROOT / ".github" / "workflows" / "docs.yml").read_text(encoding="utf-8")
    assert 'pip install ".[docs]" && mkdocs build --strict' in workflow
