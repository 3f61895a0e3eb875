"""The report of nbnet bench by hand: rows, summary, charts, tables, and the README that is made from it."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nbnet.bench import charts, results, tables
from nbnet.bench.report import combined, read, read_runs
from nbnet.bench.workloads import Workload
from nbnet.errors import DataError

ROOT = Path(__file__).parents[2]


def sample(seconds, turns=2):
    return {"seconds": seconds, "turns": turns}


FLOORS = {1: {"copy": [2e10], "copy_streaming": [4e10], "fma_float32": [1e11], "fma_float64": [5e10]}}


def row(workload, **seconds):
    return results.row(workload, 1, {"contenders": {k: sample(v) for k, v in seconds.items()}, "failed": {}, "floors": FLOORS})


def test_a_row_by_hand():
    found = row(Workload("dropout", (1, 10, 10, 100)), parallel=[1e-6, 2e-6, 3e-6], torch=[8e-6])["contenders"]
    ours = found["parallel"]
    assert (ours["median"], ours["calls"], ours["ratio"], found["torch"]["ratio"]) == (2e-6, 3, 1, 4)
    assert (ours["p10"], ours["p90"]) == pytest.approx((1.2e-6, 2.8e-6))
    assert ours["gbs"] == pytest.approx(4 * 4 * 10_000 / 2e-6 / 1e9)
    assert ours["gflops"] == pytest.approx(2 * 10_000 / 2e-6 / 1e9)
    assert ours["of_floor"] == pytest.approx(160_000 / 4e10 / 2e-6)  # the quicker copy is the floor


@pytest.fixture
def report():
    """A report of made-up times."""
    rows = [
        row(Workload("five-conv", (128,)), parallel=[0.1], torch=[0.4], jax=[0.2]),
        row(Workload("conv2d", (2, 6, 5, 3), 4, "forward"), parallel=[1.0], torch=[2.0]),
        row(Workload("conv2d", (2, 6, 5, 3), 4, "backward_data"), parallel=[1.0], torch=[8.0]),
        *(row(Workload("batchnorm", (n, 4, 4, 8), sweep=n < 64), parallel=[n * 1e-3], serial=[n * 2e-3]) for n in (64, 1, 8)),
    ]
    rows += [row(Workload("batchnorm", (64, 4, 4, 8)), parallel=[0.04], serial=[0.1]) | {"threads": 2}]
    start = {"nbnet": (1.0, 2e8), "nbnet cold": (30.0, 2e8), "torch": (4.0, 5e8), "torch cold": (60.0, 5e8)}
    return {
        "format": 1,
        "command": "nbnet bench",
        "date": "2026-01-02",
        "machine": {"cpu": "a processor"},
        "versions": {"nbnet": "0.1.0", "torch": "2.0"},
        "threads": 1,
        "backends": ["serial", "parallel"],
        "peers": ["torch", "jax"],
        "titles": {"serial": "nbnet serial", "parallel": "nbnet parallel", "torch": "PyTorch", "jax": "JAX"},
        "floors": results.floors([{"floors": FLOORS}]),
        "results": rows,
        "start": {name: {"seconds": seconds, "peak_bytes": peak} for name, (seconds, peak) in start.items()},
        "absent": {},
        "seconds": 1.0,
    }


def test_summary_by_hand(report):
    lines = {line["what"]: line for line in results.summary(report)}
    assert list(lines) == [
        *("five-conv batch 128", "conv2d, geometric mean of 2", "batchnorm 64x4x4x8"),
        *("start to the end of the first step", "the same with nothing compiled", "peak memory"),
    ]
    step = lines["five-conv batch 128"]
    assert (step["nbnet"], step["unit"], step["best_peer"], step["best"]) == (pytest.approx(100), "ms", "jax", pytest.approx(200))
    assert step["ratios"] == pytest.approx({"torch": 4, "jax": 2})
    assert lines["conv2d, geometric mean of 2"]["ratios"] == {"torch": pytest.approx(4)}  # of 2 and 8; jax has neither
    assert lines["batchnorm 64x4x4x8"]["best_peer"] is None
    assert lines["start to the end of the first step"]["ratios"] == {"torch": 4}
    assert lines["the same with nothing compiled"]["ratios"] == {"torch": 2}
    assert (lines["peak memory"]["nbnet"], lines["peak memory"]["ratios"]) == (200, {"torch": 2.5})


def test_every_chart_is_drawn(report, tmp_path):
    drawn = charts.draw(report, tmp_path)
    assert drawn == ["steps.png", "kernels.png", "roofline.png", "size.png", "threads.png"]
    for name in drawn:
        with Image.open(tmp_path / name) as image:
            assert min(image.size) >= 200
            assert len(np.unique(np.asarray(image.convert("L")))) > 8, f"{name} is blank"


def test_the_table(report, capsys):
    tables.show(report | {"summary": results.summary(report)})
    out = capsys.readouterr().out
    assert re.search(r"five-conv batch 128 +nbnet parallel +100 ms +100 ms to 100 ms +1.00 ", out)
    assert re.search(r"JAX +200 ms +200 ms to 200 ms +2.00 ", out)
    assert "the machine, 1 thread: copy 20.0 (plain stores), 40.0 (streaming stores) GB/s; FMA 100 (float32), 50.0 (float64) GFLOP/s" in out
    assert re.search(r"five-conv batch 128 +100 ms +4.00 +2.00 ", out)


@pytest.mark.parametrize(("value", "text"), [(12.34, "12.3 s"), (0.0009996, "1,000 µs"), (0.01234, "12.3 ms"), (5e-9, "0.005 µs")])
def test_seconds(value, text):
    assert tables.seconds(value) == text


# --------------------------------------------------------------------------------------------------------- README


@pytest.fixture
def readme():
    spec = importlib.util.spec_from_file_location("benchmarks_readme", ROOT / "benchmarks" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_agrees_with_the_committed_results(readme):
    committed, elsewhere = read_runs(readme.RESULTS), read_runs(readme.AVX2)
    for file, expected in readme.rewritten(committed, elsewhere).items():
        text = file.read_text(encoding="utf-8")
        assert len(readme.MARKED.findall(text)) == text.count("<!--") / 2
        assert expected == text, "run python benchmarks/readme.py"
    files = [file for folder in (readme.RESULTS, readme.AVX2) for file in sorted(folder.glob("results*.json"))]
    for each in map(read, files):
        assert _rounded(results.summary(each)) == _rounded(each["summary"])


def test_a_damaged_report_is_not_read(readme, tmp_path):
    path, good = tmp_path / "results.json", json.loads((readme.RESULTS / "results.json").read_text())
    assert json.loads(json.dumps(read(readme.RESULTS / "results.json"))) == good
    for change, words in (
        ({"format": 99}, "format is 99, expected a whole number, 1 to 1"),
        ({"threads": "2"}, "threads is '2', expected a whole number, at least 1"),
        ({"summary": None}, "summary is None, expected a list"),
        ({"more": 1}, "it has the key 'more', expected only command, "),
    ):
        path.write_text(json.dumps(good | change))
        with pytest.raises(DataError, match=f"results.json is damaged: {words}"):
            read(path)
    with pytest.raises(DataError, match=r"cannot read .*nothing: No such file or directory; write it with nbnet bench --out"):
        read(tmp_path / "nothing")


def _rounded(value):
    """Without the last bits, in which NumPy's exp and log differ from processor to processor."""
    if isinstance(value, (list, dict)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: _rounded(item) for key, item in items}
    return float(f"{value:.12g}") if isinstance(value, float) else value


def test_the_readmes_table_by_hand(readme, report):
    report |= {"summary": results.summary(report)}
    block = "\n".join([*readme.peers(report, report["summary"]), readme._origin(report)])
    assert "| five-conv, batch 128 | 100 ms | 4.00 | **2.00** | " in block
    assert "| conv2d, geometric mean of 2 | 1,000 ms | **4.00** |  | " in block
    assert "| peak memory | 200 MB | **2.50** |  |  |" in block
    assert "(2026-01-02; a processor, 1 thread; nbnet 0.1.0, torch 2.0)" in block


def test_three_runs_are_one_table(readme, report):
    reports = []
    for factor in (1.0, 0.5, 3.0):
        lines = results.summary(report)
        step = next(line for line in lines if line["what"] == "five-conv batch 128")
        step |= {"nbnet": 100 * factor, "ratios": {"torch": 4 / factor, "jax": 2 * factor}}
        reports.append(report | {"summary": lines})
    together = combined(reports)
    block = "\n".join([*readme.peers(together, together["summary"]), readme._origin(together)])
    assert "| five-conv, batch 128 | 100 ms (50.0 to 300) | 4.00 | **2.00** (1.00 to 6.00) | " in block
    assert "| peak memory | 200 MB | **2.50** |  |  |" in block
    assert "Medians of 3 runs of `nbnet bench`, with their range (2026-01-02; " in block
    assert combined(reports[:1])["summary"][0]["nbnet"] == 100


def test_the_command_has_the_variables_that_choose_instructions(monkeypatch):
    from nbnet.cli import bench, parsers

    for name in bench.LIMITS:
        monkeypatch.delenv(name, raising=False)
    options = parsers()[0].parse_args(["bench", "--ops", "adam"])
    assert bench._command(options) == "nbnet bench --ops adam"
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert bench._command(options) == "NUMBA_CPU_FEATURES='' ONEDNN_MAX_CPU_ISA=AVX2 nbnet bench --ops adam"
