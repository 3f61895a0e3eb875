"""nbnet bench: counts by hand, every contender right on tiny workloads, bad options. No test asserts a time."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nbnet as nb
from nbnet import cli, models
from nbnet.bench import contenders, measure, networks, plan, workloads
from nbnet.bench.worker import digest
from nbnet.bench.workloads import Workload

ROOT = Path(__file__).parents[2]

TINY = [
    *(Workload(op, (4,)) for op in workloads.STEPS),
    *(Workload("conv2d", (2, 6, 5, 3), 4, part) for part in ("forward", "backward_data", "backward_weights")),
    *(Workload("depthwise", (2, 6, 5, 3), stride) for stride in (1, 2)),
    Workload("groups", (2, 6, 5, 8), 4),
    Workload("conv1d", (2, 12, 3), 4),
    *(Workload("activation", (2, 4, 6, 20), part=name) for name in workloads.ACTIVATIONS),
    *(Workload(op, (2, 4, 6, 20)) for op in ("batchnorm", "dropout", "max-pool")),
    Workload("dense", (5, 7), 3),
    Workload("softmax", (6, 4)),
    Workload("adam", (100,)),
]
FORWARD = next(workload for workload in TINY if workload.part == "forward")
EFFORT = measure.Effort(0.01, 1, 1)


def bench(*words):
    return cli.main(["bench", *map(str, words)])


def error(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("nbnet: error: ")
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("nbnet: error: ").strip()


# --------------------------------------------------------------------------------------------------------- counts


@pytest.mark.parametrize(
    ("workload", "flops", "numbers"),
    [
        # 2 x 6 x 5 pixels x 9 x 3 x 4 multiply-adds; 60 x 3 numbers of x, 60 x 4 of y, 108 weights
        (Workload("conv2d", (2, 6, 5, 3), 4, "forward"), 2 * 60 * 108, 180 + 240 + 108),
        (Workload("conv2d", (2, 6, 5, 3), 4, "backward_weights"), 2 * 60 * 108, 180 + 240 + 108),
        (Workload("dense", (5, 7), 3), 3 * 2 * 105, 3 * (35 + 15 + 21)),  # three products
        (Workload("batchnorm", (2, 4, 6, 20)), 18 * 960, 8 * 960),
        (Workload("dropout", (2, 4, 6, 20)), 2 * 960, 4 * 960),
        (Workload("max-pool", (2, 4, 6, 20)), 2 * 960, 960 + 240 + 960 + 240 + 960),
        (Workload("softmax", (6, 4)), 5 * 24, 2 * 24),
        (Workload("adam", (100,)), 1200, 700),
    ],
    ids=lambda value: value.name if isinstance(value, Workload) else "",
)
def test_counts_by_hand(workload, flops, numbers):
    assert (workload.flops, workload.bytes) == (flops, 4 * numbers)


def test_counts_of_a_training_step_by_hand():
    """The MLP 3-300-3 on 10 rows in float64: the first layer needs no dx."""
    workload = Workload("mlp", (10,))
    products = 2 * 10 * (2 * 3 * 300 + 3 * 300 * 3)
    dense = 2 * (30 + 3000 + 900) + 3 * (3000 + 30 + 900)
    parameters = 900 + 300 + 600 + 900 + 3
    flops = products + 18 * 3000 + 2 * 3000 + 2 * 30 + 12 * parameters
    assert (workload.flops, workload.bytes) == (flops, 8 * (dense + 8 * 3000 + 4 * 3000 + 4 * 30 + 7 * parameters))


def test_five_conv_has_9_gflop():
    """As the design says: 9.1 GFLOP a step at batch 128, nearly all of them in convolutions."""
    assert sum(cost.flops for cost in Workload("five-conv", (128,)).costs if cost.flops > 3 * cost.bytes) == pytest.approx(9.1e9, abs=5e7)


def test_floor_is_what_binds_each_part():
    workload = Workload("conv2d", (2, 6, 5, 3), 4, "forward")
    assert workload.floor(flops=1e3, bandwidth=1e9) == workload.flops / 1e3
    assert workload.floor(flops=1e9, bandwidth=1e3) == workload.bytes / 1e3
    step = Workload("mlp", (10,))
    assert step.floor(1e3, 1e3) == pytest.approx(sum(max(cost.flops, cost.bytes) / 1e3 for cost in step.costs))


@pytest.mark.parametrize(("name", "model"), [("five-conv", "five-conv"), ("mnist-cnn", "lenet"), ("digits-cnn", "digits")])
def test_networks_are_the_models_that_nbnet_has(name, model):
    network = networks.NETWORKS[name]
    built = models.get(model)(10)
    built.build(network.input_shape, backend="numpy")
    kinds = {"conv": nb.Conv2D, "norm": nb.BatchNorm, "relu": nb.ReLU, "pool": nb.MaxPool2D, "mean": nb.GlobalAvgPool2D}
    kinds |= {"flatten": nb.Flatten, "dense": nb.Dense, "dropout": nb.Dropout}
    assert [kinds[kind] for kind, *_ in network.layers] == [type(layer) for layer in built.layers]
    assert networks.shapes(network) == [layer.output_shape for layer in built.layers]
    for arrays, layer in zip(networks.first_weights(network), built.layers):
        assert {key: array.shape for key, array in arrays.items()} == {key: param.value.shape for key, param in layer.params.items()}


# ----------------------------------------------------------------------------------------------------- contenders


@pytest.fixture(scope="module")
def reference():
    """The NumPy reference's process, in a crowd with the machine's."""
    with plan._processes([contenders.floors(), contenders.backend("numpy")], 1, {}, {}) as processes:
        yield processes


def measured(workload, contender, reference):
    absent = {}
    with plan._processes([contender], 1, absent, {}) as processes:
        assert absent == {}
        return {each.name: measure.measure(each, reference | processes, {contender.name}, EFFORT) for each in workload}


@pytest.mark.parametrize("backend", ["serial", "parallel"])
def test_backends_are_right(backend, reference):
    for name, found in measured(TINY, contenders.backend(backend), reference).items():
        assert found["failed"] == {}, name
        assert set(found["contenders"]) == {backend}
        assert {"copy", "copy_streaming", "fma_float32", "fma_float64"} == set(found["floors"][1])


@pytest.mark.parametrize("peer", ["torch", "jax", "tensorflow"])
def test_peers_are_right(peer, reference):
    found = contenders.default_peers()
    if peer not in found:
        pytest.skip(f"{peer} is not installed")
    workload = [each for each in TINY if each.op in found[peer].ops]
    for name, each in measured(workload, found[peer], reference).items():
        assert each["failed"] == {}, name


def test_wrong_results_are_not_timed(reference):
    """A kernel that is wrong in one number, a loss, a mask, a shape: each is seen."""
    right = reference["numpy"].call("build", FORWARD)
    for spoil in (lambda y: y.__setitem__((0, 0, 0, 0), 9), lambda y: y.__imul__(1.01)):
        y = right["y"]["sample"].reshape(right["y"]["shape"]).copy()
        assert measure.compare(FORWARD, {"y": digest(y)}, right) is None
        spoil(y)
        assert "differs from the reference" in measure.compare(FORWARD, {"y": digest(y)}, right)
    assert "has shape (60, 4)" in measure.compare(FORWARD, {"y": digest(y.reshape(60, 4))}, right)
    step = Workload("digits-cnn", (4,))
    expected = {"exact": [2.0, 1.9, 1.8], "random": [2.1, 2.0, 2.2]}
    assert measure.compare(step, {"exact": [2.0, 1.9, 1.8001], "random": [2.3, 1.0, 3.0]}, expected) is None
    assert "the losses" in measure.compare(step, {"exact": [2.0, 1.9, 1.81], "random": [2.1, 2.0, 2.2]}, expected)
    assert "the losses" in measure.compare(step, {"exact": [2.0, 1.9, 1.8], "random": [2.1, 2.0, np.nan]}, expected)
    assert "the losses" in measure.compare(step, {}, expected)


def test_wrong_dropout_is_seen():
    workload = Workload("dropout", (8, 8, 8, 64))
    arrays = workloads.inputs(workload)
    keep = np.random.default_rng(0).random(workload.shape) >= workloads.RATE

    def compare(y_keep, dx_keep, scale=2):
        found = {"y": digest(arrays["x"] * y_keep * scale), "dx": digest(arrays["dy"] * dx_keep * scale)}
        return measure.compare(workload, found, {})

    assert compare(keep, keep) is None
    assert "neither 0 nor x / 0.5" in compare(keep, keep, scale=1)
    assert "other places" in compare(keep, ~keep)
    assert "a share of 0.0000 is dropped" in compare(np.ones_like(keep), np.ones_like(keep))


def test_a_contender_that_dies_or_fails(reference):
    broken = contenders.Contender("broken", "broken", "nbnet.bench.nowhere", package="torch")
    absent = {}
    with plan._processes([broken], 1, absent, {}) as processes:
        assert processes == {}
    assert absent == {"broken": "ModuleNotFoundError: No module named 'nbnet.bench.nowhere'"}
    with pytest.raises(contenders.ContenderError, match="AttributeError: 'int' object has no attribute"):
        reference["numpy"].call("build", 3)
    assert reference["numpy"].call("build", TINY[-1])  # it goes on
    process = contenders.Process(contenders.backend("numpy"), 1)
    process.wait_until_ready()
    if hasattr(os, "sched_getaffinity"):  # for frameworks that use as many threads as there are processors
        assert len(os.sched_getaffinity(process._process.pid)) == 1
    process._process.kill()
    assert re.fullmatch(r"its process ended with code -9(: .*)?", process.attempt(process.call, "drop")[1])
    process.close()


# -------------------------------------------------------------------------------------------------------- command


def test_the_command(tmp_path, capsys):
    words = ["--ops", "conv2d,dropout", "--backends", "serial,numpy", "--peers", "none", "--shapes", "2x6x5x3-4,2x4x4x8", "--threads", 1]
    assert bench(*words, "--quick", "--out", tmp_path) == 0
    assert f"{tmp_path}: results.json, kernels.png, in " in capsys.readouterr().out
    report = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert {"format", "command", "date", "machine", "versions", "threads", "quick", "floors", "results", "start", "summary"} <= set(report)
    assert report["command"].endswith(f"nbnet bench {' '.join(map(str, words))} --quick")  # before it, variables that are set here
    assert {"cpu", "python", "processors", "memory_bytes"} <= set(report["machine"])
    assert {"nbnet", "numpy", "numba"} <= set(report["versions"])
    names = ["conv2d forward", "conv2d backward_data", "conv2d backward_weights", "dropout"]
    assert [f"{each['op']} {each['part']}".strip() for each in report["results"]] == names
    for each in report["results"]:
        assert each["failed"] == {}
        assert set(each["contenders"]) == {"serial", "numpy"}
        for one in each["contenders"].values():
            assert 0 < one["p10"] <= one["median"] <= one["p90"]
            assert one["calls"] >= one["turns"] >= 2
            assert min(one["gflops"], one["gbs"], one["of_floor"]) > 0
    assert {"p10", "median", "p90", "samples"} == set(report["floors"]["1"]["copy"])


def test_start_and_memory(tmp_path):
    """Of the reference, which compiles nothing."""
    sample, why = measure.start(contenders.backend("numpy"), 1, "digits-cnn", 4, {})
    assert why is None
    assert sample["seconds"] > 0
    assert 2e7 < sample["peak_bytes"] < 2e9
    _, why = measure.start(contenders.backend("numpy"), 1, "nowhere", 4, {})
    assert why == "KeyError: 'nowhere'"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--ops conv", "unknown operation 'conv': did you mean 'conv2d'?"),
        ("--ops ,", "--ops ',': expected one or more names, separated by commas"),
        ("--backends paralel", "unknown backend 'paralel': did you mean 'parallel'?"),
        (
            "--peers pytorch",
            "unknown peer 'pytorch': did you mean 'torch'? choose one of torch, torch-kept, torch-compile, jax, tensorflow, none",
        ),
        ("--shapes 3x3x3", "--shapes 3x3x3: fits none of the chosen operations; expected conv2d NxHxWxC-FILTERS"),
        ("--ops softmax --shapes 3x3x3", "--shapes 3x3x3: fits none of the chosen operations; expected softmax ROWSxCLASSES"),
        ("--ops mlp --shapes 3x3", "--shapes 3x3: fits none of the chosen operations; expected --ops with a kernel"),
        ("--threads 0", "--threads 0: expected whole numbers from 1 to"),
        ("--threads two", "--threads two: expected whole numbers from 1 to"),
        ("--threads 99999", "--threads 99999: expected whole numbers from 1 to"),
        ("--out /dev/null/x", "cannot create the folder /dev/null/x: Not a directory"),
    ],
)
def test_bad_options(words, message, capsys):
    assert bench(*words.split()) == 2
    assert error(capsys).startswith(message)


def test_a_peer_that_is_not_installed(capsys, monkeypatch):
    monkeypatch.setattr(contenders.importlib.util, "find_spec", lambda name: None)
    assert bench("--peers", "jax") == 2
    assert error(capsys) == "peer 'jax' is not installed: pip install jax, or leave it out of --peers"


def test_a_peer_process_imports_nothing_of_nbnet_but_the_bench():
    listed = "import json; print(json.dumps([name for name in sys.modules if name.startswith(('nbnet', 'numba'))]))"
    command = [sys.executable, "-c", contenders.PEER.removesuffix("main()") + listed, str(contenders.PACKAGE)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert set(found) == {"nbnet", *(f"nbnet.bench{name}" for name in ("", ".worker", ".workloads", ".networks", ".counts"))}


def test_shapes_of_the_users_own():
    assert workloads.of_shape("dense", "64x3136-128") == [Workload("dense", (64, 3136), 128)]
    assert workloads.of_shape("adam", "1000") == [Workload("adam", (1000,))]
    assert next(each.name for each in workloads.of_shape("conv2d", "1x2x3x4-5")) == "conv2d forward 1x2x3x4-5"
    assert [workloads.of_shape(*each) for each in (("conv2d", "1x2x3x4"), ("dropout", "1x2x3x0"), ("five-conv", "128"))] == [None] * 3


def test_versions_where_python_does_not_know_what_a_package_comes_from(monkeypatch):
    """Python 3.10, for packages without a top_level.txt."""
    monkeypatch.setattr(cli.bench, "packages_distributions", lambda: {"numba": ["numba"]})
    found = cli.bench.machine(plan.Plan([], [], [], [1], False, True))
    assert found["versions"]["numpy"] == np.__version__
