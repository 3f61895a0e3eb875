"""Every public name has its place in the API reference, and every name of the reference exists."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import nbnet as nb

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "api").glob("*.md"))
NAMES = [name for page in PAGES for name in re.findall(r"^::: nbnet\.([\w.]+)$", page.read_text(encoding="utf-8"), re.MULTILINE)]
MODULES = ["augment", "convert", "cs231n", "datasets", "errors", "functional", "initializers", "losses", "metrics", "models", "onnx"]
MODULES += ["callbacks", "plots", "preprocessing", "recipes", "regularizers", "schedules"]


def module_of(name):
    return getattr(nb, name, None) or importlib.import_module(f"nbnet.{name}")


def public(module):
    """What __all__ lists; without one, what the module itself defines and does not hide."""
    if module is nb or hasattr(module, "__all__"):
        return [name for name in module.__all__ if not inspect.ismodule(getattr(module, name)) and not name.startswith("__")]
    own = [name for name, thing in vars(module).items() if getattr(thing, "__module__", None) == module.__name__]
    return [name for name in own if not name.startswith("_")]


@pytest.mark.parametrize("module", ["", *MODULES])
def test_every_public_name_is_in_the_reference(module):
    prefix, thing = (f"{module}.", module_of(module)) if module else ("", nb)
    helpers = {"errors.unknown", "errors.first_line", "errors.NbnetError"}  # for nbnet's own use; nb.NbnetError
    missing = {prefix + name for name in public(thing)} - set(NAMES) - helpers
    assert not missing, "add a line ::: nbnet.NAME to a page in docs/api"


def test_what_is_described_is_in_the_reference():
    """tests/described/api.txt lists each call that has defaults, of every module."""
    module, described = "", set()
    for line in (ROOT / "tests" / "described" / "api.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("--- nbnet"):
            module = line.removeprefix("--- nbnet").lstrip(".")
        else:
            described.add((module, re.match(r"\w+", line)[0]))
    assert len(described) > 150
    missing = {f"{module}.{name}" for module, name in described if not {f"{module}.{name}", name} & set(NAMES)}
    assert missing <= {".Elementwise"}


def test_every_name_of_the_reference_exists_once():
    assert len(NAMES) == len(set(NAMES)) > 250
    for name in NAMES:
        module, _, last = name.rpartition(".")
        if module == "sklearn":  # needs scikit-learn: by its file
            assert f'"{last}"' in (ROOT / "nbnet" / "sklearn" / "__init__.py").read_text(encoding="utf-8")
        else:
            assert hasattr(module_of(module) if module else nb, last), name


def test_every_name_of_the_reference_has_a_docstring():
    for name in NAMES:
        module, _, last = name.rpartition(".")
        thing = None if module == "sklearn" else getattr(module_of(module) if module else nb, last)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), thing
