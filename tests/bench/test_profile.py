"""nbnet bench --profile: the calls of a training step, and their floors."""

import json
from math import prod

import numpy as np
import pytest

from nbnet import cli, models
from nbnet.bench import networks, profile
from nbnet.bench.networks import Network
from nbnet.errors import ArgumentError

TINY = Network("tiny", (6, 6, 2), (("conv", 4), ("norm",), ("relu",), ("pool", 2), ("depthwise", 1), ("flatten",), ("dense", 3)))
FUSED = Network("fused", (3,), (("dense", 7), ("norm",), ("tanh",), ("dense", 3)), "float64", "sum_squared_error")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(networks, "NETWORKS", {"tiny": TINY, "fused": FUSED})
    monkeypatch.setattr(profile, "BATCHES", {"tiny": 10, "fused": 10})
    monkeypatch.setattr(profile, "ROUNDS", 3)
    monkeypatch.setattr(profile, "fma_rate", lambda threads, dtype: 1e9)
    monkeypatch.setattr(profile, "_copy", lambda size, threads: 1e6)


def test_every_product_is_there_with_its_cost():
    found = profile.Profile("tiny").run(lambda done: None)
    counts = {}
    for call in found["calls"]:
        if call["multiply_adds"]:
            counts[call["layer"].split(",")[0], call["direction"], call["kernel"]] = call["multiply_adds"], call["bytes"]
    first, second, last = 10 * 36 * 9 * 2 * 4, 10 * 9 * 9 * 4, 10 * 36 * 3
    assert {key: count for key, (count, _) in counts.items()} == {
        ("0.conv2d", "forward", "conv2d.forward"): first,
        ("0.conv2d", "backward", "conv2d.backward_weights"): first,  # nothing below needs dx
        ("4.depthwiseconv2d", "forward", "depthwise.forward"): second,
        ("4.depthwiseconv2d", "backward", "depthwise.backward_data"): second,
        ("4.depthwiseconv2d", "backward", "depthwise.backward_weights"): second,
        ("6.dense", "forward", "dense.forward"): last,
        ("6.dense", "backward", "dense.backward_data"): last,
        ("6.dense", "backward", "dense.backward_weights"): last,
    }
    x, y, weight = 10 * 72, 10 * 36 * 4, 9 * 2 * 4
    size = counts["0.conv2d", "forward", "conv2d.forward"][1]
    assert 4 * (x + y + weight) < size <= 4 * (x + y + weight + 8 * 4), (
        "x, y, the weights and numbers of channels once each, and no scratch"
    )
    conv = next(call for call in found["calls"] if call["kernel"] == "conv2d.forward")
    assert conv["floor"] == max(conv["bytes"] / 1e6, 2 * first / 1e9)
    assert all(call["seconds"] > 0 for call in found["calls"])
    assert [call["kernel"] for call in found["calls"] if not call["layer"]] == ["SoftmaxCrossEntropy", "Adam"]
    assert found["calls"][-1]["bytes"] == 4 * 4 * sum(
        prod(array.shape) for arrays in networks.first_weights(TINY) for array in arrays.values()
    )


def test_the_calls_are_those_of_the_step():
    """One after the other, they do what train_batch does."""
    for name in ("tiny", "fused"):
        one, two = profile.Profile(name), profile.Profile(name)
        *calls, (*_, update) = one._calls()
        for params in (one.trainer.model.params, two.trainer.model.params):
            for param in params.values():
                param.grad[:] = np.nan
        for *_, run in calls:
            run()
        update()
        two.trainer.train_batch(two.x, two.y)
        for (key, a), b in zip(one.trainer.model.params.items(), two.trainer.model.params.values(), strict=True):
            assert a.value.tobytes() == b.value.tobytes(), key


def test_the_command(tmp_path, capsys):
    assert cli.main(["bench", "--profile", "tiny,fused", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for name in ("tiny", "fused"):
        text, found = (
            (tmp_path / f"profile-{name}.md").read_text("utf-8"),
            json.loads((tmp_path / f"profile-{name}.json").read_text("utf-8")),
        )
        assert text in out
        assert text.startswith(f"{name}, batch 10, ")
        rows = [line for line in text.splitlines() if line.startswith("| ")]
        assert len(rows) == 2 + len({(call["layer"], call["direction"], call["kernel"]) for call in found["calls"]})
        taken, floor = (sum(call[kind] for call in found["calls"]) for kind in ("seconds", "floor"))
        assert rows[-1].startswith("| all kernels |  |  | ")
        assert f" {100 * floor / taken:.0f} |" in rows[-1]
        assert f"At its floors the step would take {profile.seconds(floor)}." in text


def test_bad_options(tmp_path, capsys):
    with pytest.raises(ArgumentError, match="unknown model 'tin': did you mean 'tiny'"):
        profile.Profile("tin")
    for words, message in (
        (["--profile", "tin"], "unknown model 'tin': did you mean 'tiny'?"),
        (["--profile", "tiny", "--ops", "conv2d"], "got --ops with --profile, expected only --out with it: leave --ops out"),
        (
            ["--profile", "tiny", "--threads", "1"],
            "got --threads with --profile, expected only --out with it: set the environment variable NUMBA_NUM_THREADS",
        ),
    ):
        assert cli.main(["bench", *words, "--out", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_rates_of_the_machine(monkeypatch):
    monkeypatch.undo()
    assert 1e8 < profile.copy_rate(3_000_000, 1) < 1e12
    assert profile.copy_rate(3_000_000, 1) == profile.copy_rate(1 << 22, 1), "measured once for each power of two"
    assert profile.copy_rate(0, 1) == profile.copy_rate(1, 1)
    assert 1e8 < profile.fma_rate(1, "float64") < profile.fma_rate(1, "float32") * 2


@pytest.mark.parametrize("name", models.MODELS)
def test_models_that_are_no_networks_of_the_benchmark(name):
    trainer, x, y = profile._trainer(name, 4)
    assert x.shape == (4, *trainer.model.input_shape)
    assert trainer.model.input_shape == {"digits": (8, 8, 1), "lenet": (28, 28, 1)}.get(name, (32, 32, 3))
    assert (x.dtype, len(y)) == (np.float32, 4)


def test_a_model_with_branches_and_an_average(monkeypatch):
    monkeypatch.setattr(profile, "BATCHES", {"airbench": 2, "se-resnet": 2})
    monkeypatch.setattr(models, "MODELS", {"airbench": lambda classes: models.airbench(classes, (4, 4, 4)), "se-resnet": models.se_resnet})
    for name in ("airbench", "se-resnet"):
        made = profile.Profile(name)
        counted = sum(call["multiply_adds"] for call in made.run(lambda done: None)["calls"] if call["direction"] == "forward")
        assert counted == 2 * made.trainer.model.multiply_adds()
