"""Figures in the text are in the results: each number with a unit, outside of the tables that benchmarks/readme.py writes."""

import importlib.util
import re
from pathlib import Path

import pytest

from nbnet.bench.report import read_runs
from nbnet.cli import bench
from nbnet.demos import drawing

ROOT = Path(__file__).parents[1]
UNITS = r"(?:%|ms|µs|us|ns|s|GFLOP/s|GB/s|MiB|MB|times(?= as))"
FIGURE = re.compile(rf"(?<![\w.-])(\d[\d,]*(?:\.\d+)?)(?: (?:to|instead of) (\d[\d,]*(?:\.\d+)?))? ({UNITS})(?!\w)")
ELSEWHERE = {"batchnorm.md", "dropout.md"}  # derivations: their blocks print their figures
PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in ELSEWHERE)]
PAGES += [f"docs/demos/{path.name}" for path in sorted((ROOT / "docs" / "demos").glob("*.md"))]
# What is no measurement: settings, sizes and definitions, by the words around them.
NOT_MEASURED = {
    "100 %": "a share",
    "500 µs": "NBNET_SPIN_MICROSECONDS",
    "99 %": "the example's threshold",
    "40 %": "the brightness of a demonstration's images",
    "1 MB": "the machine's caches",
    "32 MB": "the machine's caches",
}


def load(name):
    """A program in benchmarks/."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def known():
    """All figures of the results with their units."""
    readme = load("readme")
    return readme.measured(read_runs(readme.RESULTS), read_runs(readme.AVX2))


def unknown(text, known):
    text = re.sub(r"<!-- benchmarks.*?<!-- to here -->|^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    found = [match for match in FIGURE.finditer(text) if match[0] not in NOT_MEASURED]
    return [match[0] for match in found if not {(float(n.replace(",", "")), match[3]) for n in match.groups()[:2] if n} <= known]


@pytest.mark.parametrize("page", PAGES)
def test_every_figure_is_in_the_results(page, known):
    assert unknown((ROOT / page).read_text(encoding="utf-8"), known) == [], "let benchmarks/readme.py write it, from a measurement"


def test_an_invented_figure_is_found(known):
    measured = next(number for number, unit in sorted(known, key=str) if unit == "µs" and number < 100)
    text = f"The digits CNN takes {measured:g} µs, or 12.3457 ms, and 61.3791 to 99.9173 %."
    assert unknown(text, known) == ["12.3457 ms", "61.3791 to 99.9173 %"]


def test_means_and_deviations():
    pages = load("demo_pages")

    def said(*each, percent=False):
        return pages.plus_minus(drawing.spread(each), percent)

    assert said(0.1, 0.2, 0.3) == "0.20 ± 0.10"
    assert said(9.0, 10.0, 11.5) == "10.2 ± 1.3"
    assert said(39_999, 40_451, 41_139) == "40,530 ± 574"
    assert said(2e-5, 3e-5) == "2.5e-05 ± 7e-06"
    assert said(0, 0) == "0"
    assert said(0.96, 0.98, percent=True) == "97.0 ± 1.4 %"
    assert pages.ahead(drawing.spread([1, 2, 3]), drawing.spread([2, 2, 4])) == "2 of 3"


def test_patterns_of_printed_figures():
    printed = {
        "digits": "test accuracy: 99.16 % (3 of 359 wrong)",
        "sklearn": "CNNClassifier, images  test accuracy 99.4%    0.31 s    0.30 s of processor time\n"
        "CNNClassifier, table   test accuracy 97.4%    0.11 s    0.12 s of processor time\n"
        "MLPClassifier          test accuracy 97.5%    0.40 s    0.44 s of processor time",
        "inside-numba": "100,000 predictions in 0.33 s, 3.3 us each; a digit survives 12 wrong pixels",
    }
    found = {}
    for name, text in printed.items():
        _, patterns, _ = load("commands").COMMANDS[name]
        found |= {key: float(re.search(pattern, text, re.MULTILINE)[1]) for key, pattern in patterns.items()}
    assert list(found.values()) == [99.16, 99.4, 0.3, 97.4, 0.12, 97.5, 0.44, 0.33]


def test_every_limited_variable_is_in_the_report():
    measure = load("measure")
    assert set(measure.AVX2) == set(measure.SSE) == set(bench.LIMITS)
