"""What nbnet bench does, says and draws, from made-up times, beside tests/described/."""

import json
import re
import sys

import numpy as np
import pytest
from descriptions import check
from drawn import caught, number, numbers
from progress_bar import Bar

from nbnet import cli
from nbnet.bench import charts, networks, results, tables, worker, workloads
from nbnet.bench.workloads import Workload
from nbnet.cli.bench import LIMITS

from . import made_up

RUNS = {
    "quick": "--quick --backends serial,parallel --peers torch,torch-compile",
    "full": "--ops five-conv,conv2d,batchnorm,softmax,start --backends numpy,serial,parallel "
    "--peers torch,torch-compile,jax,tensorflow --threads 1,4",
    "own": "--ops conv2d,dense,start --shapes 2x6x5x3-4,8x9-7,2x7x7x5-5 --backends serial --peers none --threads 2",
    "few": "--ops dropout,five-conv,start --backends parallel --quick",
}


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR", *LIMITS):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def drawn(monkeypatch):
    return caught(monkeypatch)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_on_made_up_times(name, tmp_path, monkeypatch, capsys, request, drawn):
    monkeypatch.chdir(tmp_path)
    lines = []
    made_up.install(monkeypatch, lines)
    assert cli.main(["bench", *RUNS[name].split()]) == 0
    printed = capsys.readouterr()
    bar = Bar.made.pop()
    assert [done for done, _ in bar.updates] == list(range(bar.total))
    report = json.loads((tmp_path / "runs" / "bench" / "results.json").read_text(encoding="utf-8"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", report.pop("date"))
    assert 0 < report.pop("seconds") < 100
    lines += [f"progress: {bar.words}", *(name for _, name in bar.updates), *_report_lines(report)]
    lines += re.sub(r"in \d+ s", "in # s", printed.out.replace("\\", "/")).splitlines()
    lines += [f"on stderr: {line}" for line in printed.err.splitlines()]
    check(request.config, f"bench-{name}", [*lines, *drawn])


def _report_lines(report):
    for key, value in report.items():
        if key == "results":
            for row in value:
                shown = {name: each for name, each in row.items() if name not in ("contenders", "shape")}
                yield f"row {numbers(row['shape'])} {_values(shown)}"
                yield from (f"  {name}: {_values(each)}" for name, each in row["contenders"].items())
        elif key == "summary":
            yield from (f"summary {_values(each)}" for each in value)
        elif key in ("floors", "start"):
            yield from (f"{key} {name}: {_values(each)}" for name, each in value.items())
        else:
            yield f"{key}: {value}"


def _values(record):
    """One line."""
    if isinstance(record, dict):
        return "{" + ", ".join(f"{key} {_values(value)}" for key, value in record.items()) + "}"
    if isinstance(record, list):
        return f"[{', '.join(map(_values, record))}]"
    return number(record) if isinstance(record, float) else str(record)


def test_charts_of_little(tmp_path, drawn, request):
    """One thread, no peer, a contender without a colour, a very slow one, one that was not measured."""

    def row(workload, threads=1, **seconds):
        samples = {name: {"seconds": [value], "turns": 1} for name, value in seconds.items()}
        floors = {1: {name: [value] for name, value in made_up.FLOORS.items()}}
        return results.row(workload, threads, {"contenders": samples, "failed": {"other": "why"}, "floors": floors})

    rows = [
        row(Workload("dense", (8, 9), 7), parallel=1e-5, other=3e-6, numpy=1e-1),
        row(Workload("dense", (8, 90), 7), parallel=2.0, serial=1.0),
        row(Workload("dropout", (2, 2, 2, 2)), serial=3e-9, parallel=2e-9),
    ]
    report = {
        "threads": 1,
        "peers": [],
        "titles": {"parallel": "ours", "serial": "one", "numpy": "NumPy", "other": "another"},
        "floors": results.floors([{"floors": {1: {name: [value] for name, value in made_up.FLOORS.items()}}}]),
        "results": rows,
        "start": {},
    }
    assert charts.draw(report, tmp_path) == ["kernels.png", "roofline.png"]
    assert charts.draw(report | {"floors": {}, "results": rows[:1]}, tmp_path) == ["kernels.png"]
    assert charts.draw(report | {"results": []}, tmp_path) == []
    many = [
        row(Workload("dense", (n, 9), 7, sweep=n != 2), t, parallel=n / t, **({} if n == 4 else {"other": 1.0 * n}))
        for n in (4, 2, 1)
        for t in (1, 2)
    ]
    assert charts.draw(report | {"results": many}, tmp_path) == ["kernels.png", "roofline.png", "size.png", "threads.png"]
    check(request.config, "bench-charts", drawn)


def test_the_table_of_little(capsys, request, monkeypatch):
    cells = {"median": 0.5, "p10": 0.25, "p90": 1.0, "gflops": 0.01234, "gbs": 99.96, "of_floor": None, "ratio": None}
    report = {
        "threads": 3,
        "peers": [],
        "titles": {"a": "A", "parallel": "ours", "b": "B"},
        "floors": {count: {name: {"median": 2.0} for name in made_up.FLOORS} for count in ("1", "3")},
        "results": [
            {
                "workload": "w",
                "threads": 3,
                "sweep": False,
                "contenders": {"a": cells, "parallel": cells | {"median": 0.1}},
                "failed": {"b": "x" * 80},
            },
            {"workload": "v", "threads": 1, "sweep": False, "contenders": {}, "failed": {}},
            {"workload": "u", "threads": 3, "sweep": True, "contenders": {}, "failed": {}},
        ],
        "summary": [{"what": "it", "unit": "s", "nbnet": 12.34, "ratios": {}, "of_floor": 0.5}],
    }
    tables.show(report)
    check(request.config, "bench-table", capsys.readouterr().out.splitlines())
    if sys.platform == "win32":  # has consoles without such styles
        return
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "120"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    tables.show(report | {"peers": ["a"]})
    styles = re.findall(r"^\x1b\[([\d;]+)m.*m(ours|A|B)\b", capsys.readouterr().out, re.MULTILINE)
    assert styles[:3] == [("1;32", "ours"), ("1", "A"), ("31", "B")]


# ------------------------------------------------------------------------------------------------------- workloads


def test_the_workloads(request):
    """All of a run: their counts, the least times, and of small ones the arrays."""
    lines = []
    for quick in (False, True):
        lines.append(f"quick {quick}")
        for each in workloads.standard(quick):
            costs = [f"{number(cost.flops)} {number(cost.bytes)}" for cost in each.costs]
            lines.append(f"{each.name}, {each.dtype}, sweep {each.sweep}, step {each.is_step}: {', '.join(costs)}")
            lines.append(f"  at least {number(each.floor(1e11, 1e10))} s, {number(each.flops)}, {number(each.bytes)}")
    sizes = {"N": 2, "H": 6, "W": 8, "L": 9, "C": 32, "FILTERS": 32, "STRIDE": 2, "ROWS": 8, "INPUTS": 9, "OUTPUTS": 7, "CLASSES": 5}
    for op, form in workloads.FORMS.items():
        text = re.sub("[A-Z]+", lambda match: str(sizes.get(match[0], 10)), form)
        for each in workloads.of_shape(op, text):
            lines += [f"{each.name} {name}: {array.dtype} {array.shape} {numbers(array)}" for name, array in workloads.inputs(each).items()]
            lines.append(f"  results {worker.results_of(each)}")
    for name, network in networks.NETWORKS.items():
        lines += [f"{name}: {network}", f"  {networks.shapes(network)}", f"  {networks.without_dropout(network).layers}"]
        lines += [f"  {key} {array.dtype} {numbers(array)}" for arrays in networks.first_weights(network) for key, array in arrays.items()]
        lines += [f"  batch {array.dtype.kind} {array.shape} {numbers(array)}" for array in networks.batch(network, 6)]
        lines += [f"  cost {numbers(cost)}" for cost in networks.costs(network, 6)]
    check(request.config, "bench-workloads", lines)


def test_elements_near_the_kink_move_away():
    x = np.array([[-1, 2], [1, 2], [3, 2], [0.999995, 8]], np.float32)
    before = x.copy()
    workloads._keep_off_the_kink(x, np.ones(2, np.float32), np.zeros(2, np.float32))
    moved = x - before
    assert (moved[1, 0], moved[3, 0]) == pytest.approx((1e-4, 1e-4), rel=1e-2)
    assert np.count_nonzero(moved) == 2
