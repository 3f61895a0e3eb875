"""tools/mutate.py, in short: which faults are drawn, and what is called found."""

import importlib
import shutil
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"
SMALLER = '''"""Two numbers."""


def smaller(a, b):
    if not a < b:
        return b
    return a
'''
TESTS = """from nbnet.numbers import smaller


def test_smaller():
    assert (smaller(1, 2), smaller(2, 1), smaller(1, 1)) == (1, 1, 1)
"""


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("mutate"), importlib.import_module("mutations")


@pytest.fixture
def project(tmp_path):
    for name, text in (("nbnet/__init__.py", ""), ("nbnet/numbers.py", SMALLER), ("tests/test_numbers.py", TESTS)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


CHANGES = {
    "x = a < b": {"x = a <= b", "x = a >= b"},
    "x = a == b": {"x = a != b"},
    "x = 0 <= a < b": {"x = 0 < a < b", "x = 0 > a < b", "x = 0 <= a <= b", "x = 0 <= a >= b", "x = 1 <= a < b"},
    "x = a + 1": {"x = (a - 1)", "x = a", "x = a + 2", "x = a + 0"},
    "x = a * b": {"x = (a / b)"},
    "x = -a": {"x = a"},
    "x = a and b": {"x = (a or b)"},
    "x = not a": {"x = a"},
    "x = True": {"x = False"},
    "x = min(a, b)": {"x = max(a, b)", "x = min(b, a)"},
    "f(a, b, c)": {"pass", "f(b, a, c)", "f(a, c, b)"},
    "a.x = b": {"pass"},
    "a[i] += b": {"pass"},
    "if a:\n    raise E(f'{b + 1}' + str(2))": {"if (not (a)):\n    raise E(f'{b + 1}' + str(2))", "if a:\n    pass"},
    "def f(a: int = 3) -> str:\n    '''Text 1.'''\n    return g": {
        "def f(a: int = 4) -> str:\n    '''Text 1.'''\n    return g",
        "def f(a: int = 3) -> str:\n    '''Text 1.'''\n    return None",
    },
    "x = 'é', 5": {"x = 'é', 6"},
    "import a\nx = b\nassert c > 1": set(),
}


@pytest.mark.parametrize("text", CHANGES)
def test_the_changes_of_a_text(tools, text):
    _, mutations = tools
    assert {mutations.planted(text, mutation) for mutation in mutations.mutations(text)} == CHANGES[text]


def test_a_draw_is_a_function_of_the_seed(tools):
    """And each fault parses, and is another program."""
    mutate, mutations = tools
    folders = ["nbnet/losses", "nbnet/schedules.py"]
    drawn = mutate.draw(mutate.ROOT, 30, 1, folders, False)
    assert drawn == mutate.draw(mutate.ROOT, 30, 1, folders, False) != mutate.draw(mutate.ROOT, 30, 2, folders, False)
    assert len(set(drawn)) == 30
    assert len({mutation.kind for _, mutation in drawn}) >= 6
    for module, mutation in drawn:
        assert mutate.below(module, folders)
        text = (mutate.ROOT / module).read_text(encoding="utf-8")
        assert mutations.is_fault(text, mutation)
        compile(mutations.planted(text, mutation), module, "exec")
    assert mutate.draw(mutate.ROOT, 5, 1, ["nbnet/losses"], True) == []
    assert all(module.startswith("nbnet/kernels/loss/") for module, _ in mutate.draw(mutate.ROOT, 5, 1, ["nbnet/kernels/loss"], True))


def test_a_fault_is_found_and_an_equal_change_survives(tools, project, capsys):
    mutate, mutations = tools
    by_text = {mutation.after: mutation for mutation in mutations.mutations(SMALLER)}
    equal, fault = by_text["a <= b"], by_text["a >= b"]
    drawn = [("nbnet/numbers.py", each) for each in (fault, equal)]
    results = mutate.Trial(project).run(drawn, float("inf"))
    assert [noticed for *_, noticed in results] == [True, False]
    assert (project / "nbnet/numbers.py").read_text(encoding="utf-8") == SMALLER
    assert mutate.report(results) == 1
    said = capsys.readouterr().out
    assert "found    nbnet/numbers.py:5  a < b  ->  a >= b" in said
    assert "tests/test_numbers.py::test_smaller" in said
    assert said.endswith("all                                         1 of    2 found\nnbnet/numbers.py:5  a < b  ->  a <= b\n")
    assert mutate.report(results[:1]) == 0


def test_tests_that_fail_anyway_find_nothing(tools, project, capsys):
    mutate, mutations = tools
    (project / "tests" / "test_numbers.py").write_text("def test_wrong():\n    assert False\n", encoding="utf-8")
    fault = mutations.mutations(SMALLER)[0]
    ((_, _, noticed),) = mutate.Trial(project).run([("nbnet/numbers.py", fault)], float("inf"))
    assert not noticed
    assert "left out, since it fails without a fault: tests/test_numbers.py::test_wrong" in capsys.readouterr().out


def test_a_test_file_that_cannot_be_imported_is_left_out(tools, project, capsys):
    mutate, mutations = tools
    (project / "tests" / "numbers").mkdir()
    (project / "tests" / "numbers" / "test_more.py").write_text("import nothing_of_that_name\n", encoding="utf-8")
    (project / "nbnet" / "numbers").mkdir()
    (project / "nbnet" / "numbers.py").rename(project / "nbnet" / "numbers" / "__init__.py")
    fault = next(mutation for mutation in mutations.mutations(SMALLER) if mutation.after == "a >= b")
    ((_, _, noticed),) = mutate.Trial(project).run([("nbnet/numbers/__init__.py", fault)], float("inf"))
    assert noticed
    said = capsys.readouterr().out
    assert "left out, since it fails without a fault: tests/numbers/test_more.py" in said
    assert "tests/test_numbers.py::test_smaller" in said


def test_the_time_is_limited(tools, project, capsys):
    mutate, _ = tools
    assert mutate.Trial(project).run([("nbnet/numbers.py", None)], 0) == []
    assert capsys.readouterr().out == "1 faults are left: the time is over\n"


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
def test_a_copy_follows_the_project(tools, project, tmp_path_factory):
    mutate, _ = tools
    target = tmp_path_factory.mktemp("copy")
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    (project / ".gitignore").write_text("ignored.py\n", encoding="utf-8")
    (project / "ignored.py").touch()
    mutate.copied(project, target)
    same = (target / "nbnet/numbers.py").stat()
    assert (same.st_mtime, (target / "ignored.py").exists()) == ((project / "nbnet/numbers.py").stat().st_mtime, False)
    (target / "nbnet/numbers.py").write_text("a fault that was left there", encoding="utf-8")
    (project / "nbnet/numbers.py").rename(project / "nbnet/others.py")
    mutate.copied(project, target)
    assert sorted(path.name for path in (target / "nbnet").iterdir()) == ["__init__.py", "others.py"]


def test_the_tests_of_a_module(tools):
    mutate, _ = tools
    tests, first = mutate.tests_of(mutate.ROOT, "nbnet/optimizers/adam.py")
    assert {"tests/optimizers/test_optimizers.py", "tests/layers/test_parameters.py"} < set(tests)
    assert first == 0
    tests, first = mutate.tests_of(mutate.ROOT, "nbnet/runtime/memory.py")
    assert (tests[0], first) == ("tests/runtime/test_memory.py", 1)
    tests, _ = mutate.tests_of(mutate.ROOT, "nbnet/kernels/loss/cpu.py")
    assert tests[0] == "tests/kernels/test_loss.py"
    assert "tests/test_batchnorm_tools.py" in mutate.tests_of(mutate.ROOT, "nbnet/folding.py")[0]


def test_every_module_has_tests(tools):
    mutate, _ = tools
    assert all((mutate.ROOT / name).exists() for names in mutate.TESTS.values() for name in names)
    for path in (mutate.ROOT / "nbnet").rglob("*.py"):
        module = path.relative_to(mutate.ROOT).as_posix()
        tests, _ = mutate.tests_of(mutate.ROOT, module)
        assert tests, f"{module}: which tests concern it? Add them to TESTS in tools/mutate.py"
        assert all((mutate.ROOT / name).is_file() for name in tests)


def test_peers_are_drawn_only_if_they_are_named(tools):
    mutate, _ = tools
    for folders, found in (([], False), (["nbnet/bench"], False), (["nbnet/bench/peers"], True), (["nbnet/bench/peers/jax_jit.py"], True)):
        assert mutate._is_wanted("nbnet/bench/peers/jax_jit.py", folders) == found
    assert mutate._is_wanted("nbnet/bench/plan.py", ["nbnet/bench"])
    assert not mutate._is_wanted("nbnet/bench/plan.py", ["nbnet/bench/peers"])


@pytest.mark.parametrize("notices", [False, True])
def test_a_fault_in_a_cuda_kernel_may_be_found_without_the_simulator(project, tools, capsys, notices):
    """Its PTX is compiled there; the simulator runs Python."""
    mutate, mutations = tools
    option = "def pytest_addoption(parser):\n    parser.addoption('--cuda')\n"
    start = "import sys\n\nfrom nbnet.kernels.cuda import smaller\n\nSIMULATED = '--cuda=simulator' in sys.argv\n\n\n"
    files = {
        "tests/conftest.py": option,
        "nbnet/kernels/cuda.py": SMALLER,
        "tests/kernels/test_cuda.py": start + "def test_it():\n    assert SIMULATED\n",
        "tests/kernels/gpu/test_ptx.py": start + f"def test_it():\n    assert SIMULATED or {not notices} or smaller(1, 2) == 1\n\n\n"
        "def test_that_fails_anyway():\n    assert SIMULATED\n",
    }
    for name, text in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text, encoding="utf-8")
    fault = next(each for each in mutations.mutations(SMALLER) if each.after == "a >= b")
    ((_, _, found),) = mutate.Trial(project).run([("nbnet/kernels/cuda.py", fault)], float("inf"))
    assert found == notices
    assert ("tests/kernels/gpu/test_ptx.py::test_it" in capsys.readouterr().out) == notices
