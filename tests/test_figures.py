"""Figures in the text are in the results: each number with a unit, outside of the tables that benchmarks/readme.py writes."""

import importlib.util
import re
from pathlib import Path

import pytest

from nbnet.bench.report import read_runs

ROOT = Path(__file__).parents[1]
UNITS = r"(?:%|ms|µs|us|ns|s|GFLOP/s|GB/s|MiB|MB|times(?= as))"
FIGURE = re.compile(rf"(?<![\w.-])(\d[\d,]*(?:\.\d+)?)(?: (?:to|instead of) (\d[\d,]*(?:\.\d+)?))? ({UNITS})(?!\w)")
ELSEWHERE = {"batchnorm.md", "dropout.md"}  # derivations: their blocks print their figures
PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in ELSEWHERE)]
# What is no measurement: settings, sizes and definitions, by the words around them.
NOT_MEASURED = {
    "100 %": "a share",
    "500 µs": "NBNET_SPIN_MICROSECONDS",
    "99 %": "the example's threshold",
    "1 MB": "the machine's caches",
    "32 MB": "the machine's caches",
}


@pytest.fixture(scope="module")
def known():
    """All figures of the results with their units."""
    spec = importlib.util.spec_from_file_location("benchmarks_readme", ROOT / "benchmarks" / "readme.py")
    readme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readme)
    return readme.measured(read_runs(readme.RESULTS), read_runs(readme.AVX2))


def unknown(text, known):
    text = re.sub(r"<!-- benchmarks.*?<!-- to here -->|^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    found = [match for match in FIGURE.finditer(text) if match[0] not in NOT_MEASURED]
    return [match[0] for match in found if not {(float(n.replace(",", "")), match[3]) for n in match.groups()[:2] if n} <= known]


@pytest.mark.parametrize("page", PAGES)
def test_every_figure_is_in_the_results(page, known):
    assert unknown((ROOT / page).read_text(encoding="utf-8"), known) == [], "let benchmarks/readme.py write it, from a measurement"


def test_an_invented_figure_is_found(known):
    assert unknown("The digits CNN takes 4.20 µs, or 4.20 ms, and 61.3 to 99.9 %.", known) == ["4.20 ms", "61.3 to 99.9 %"]
