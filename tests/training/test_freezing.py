"""Fine-tuning: what is frozen keeps its bits, on every backend, fused or not, replayed or not, and over checkpoints."""

import warnings

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, BuildError, CheckpointError
from nbnet.training.freezing import switches

from .small import bits, small_model, small_trainer


def off(model):
    """The switches that are off."""
    return {name for name, (owner, attribute, _) in switches(model).items() if not getattr(owner, attribute)}


CONV = {"0.conv2d.weight.trainable", "0.conv2d.bias.trainable"}
INNER = {"4.residual.body.0.conv2d.weight.trainable", "4.residual.body.0.conv2d.bias.trainable"}
STATISTICS = {"1.batchnorm.use_batch_statistics", "1.batchnorm.update_statistics"}
NORM = {"1.batchnorm.gamma.trainable", "1.batchnorm.beta.trainable"} | STATISTICS
DENSE = {"7.dense.weight.trainable", "7.dense.bias.trainable"}
PATTERNS = {
    "conv*": CONV | INNER,
    "0.conv2d": CONV,
    "4.*": INNER,
    "batchnorm": NORM,
    "*.gamma": {"1.batchnorm.gamma.trainable"},
    "*.moving_*": STATISTICS,
    "[0-1].*": CONV | NORM,
    "*.bias": {name for name in CONV | INNER | DENSE if "bias" in name},
    "*": CONV | INNER | NORM | DENSE,
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns(pattern):
    model = small_model()
    assert off(model) == set()
    nb.freeze(model, pattern)
    assert off(model) == PATTERNS[pattern]
    assert model[1].trainable == (not {"1.batchnorm.gamma.trainable"} & PATTERNS[pattern])
    nb.unfreeze(model)
    assert off(model) == set()
    nb.freeze(model)
    assert off(model) == PATTERNS["*"]
    nb.unfreeze(model, pattern, "dense")
    assert off(model) == PATTERNS["*"] - PATTERNS[pattern] - DENSE


def test_parts_of_a_model():
    """A slice shares its layers; a layer alone has names without those around it; a batch norm may have no parameters."""
    model = small_model()
    nb.freeze(model[:2])
    assert off(model) == CONV | NORM
    nb.unfreeze(model[0], "weight")
    assert off(model) == NORM | {"0.conv2d.bias.trainable"}
    nb.unfreeze(model.trunk(until="3.maxpool2d"))
    assert off(model) == set()
    plain = nb.Sequential([nb.BatchNorm(center=False, scale=False).named("norm"), nb.Dense(2)])
    plain.build((3,), backend="serial")
    nb.freeze(plain, "norm")
    assert off(plain) == {"norm.use_batch_statistics", "norm.update_statistics"}


MISTAKES = {
    "no such name": (("conv*", "con2d"), r"^freeze: unknown parameter 'con2d': did you mean .*conv2d.*moving_mean"),
    "a list": ((["conv*"],), r"^freeze got the pattern \['conv\*'\], expected text: write nb\.freeze\(model, \*patterns\)$"),
    "a layer": (("*", nb.Dense(2)), r"^freeze got the pattern nb\.Dense\(2\), expected text"),
    "what has no parameters": (("dropout",), r"^freeze: unknown parameter 'dropout'"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistakes_change_nothing(kind):
    patterns, words = MISTAKES[kind]
    model = small_model()
    with pytest.raises(ArgumentError, match=words) as caught:
        nb.freeze(model, *patterns)
    assert off(model) == set()
    assert "\n" not in str(caught.value)


def test_what_is_no_built_model():
    with pytest.raises(BuildError, match=r"^unfreeze expects a built model: call model\.build\(input_shape\) first$"):
        nb.unfreeze(nb.Sequential([nb.Dense(2)]))
    with pytest.raises(ArgumentError, match=r"^freeze got str, expected a built model or layer: write nb\.freeze\(model, 'conv\*'\)$"):
        nb.freeze("conv*", small_model())


# ------------------------------------------------------------------------------------------------------- fine-tuning


@pytest.fixture(scope="module")
def digits():
    """Small and large digits, as two tasks of five classes."""
    (x, y), _, _ = nb.datasets.load("digits")
    x, y = x[:700], y[:700]
    return (x[y < 5], y[y < 5]), (x[y >= 5], y[y >= 5] - 5)


def layers_of_a_trunk():
    first = [nb.Conv2D(8, 3, use_bias=False), nb.BatchNorm(), nb.ReLU(), nb.MaxPool2D(2)]
    inner = [nb.Conv2D(8, 3), nb.BatchNorm(activation="relu")]
    return [*first, nb.Residual(inner), nb.BatchNorm(track="deviation"), nb.Flatten()]


def state_of(model):
    return {name: np.array(array).tobytes() for name, array in model.state().items()}


@pytest.mark.parametrize(
    ("backend", "options"),
    [("serial", {}), ("parallel", {}), ("numpy", {}), ("serial", {"replay": False}), ("serial", {"accumulate": 2, "clip_norm": 1.0})],
    ids=str,
)
@pytest.mark.parametrize("fuse", [True, False])
def test_a_new_head_on_a_frozen_trunk(digits, backend, options, fuse):
    """Parameters and moving statistics of the trunk keep their bits, in batches whose statistics differ; the accuracy of the head rises."""
    small, large = digits
    model = nb.Sequential([*layers_of_a_trunk(), nb.Dense(5).named("head")])
    model.build((8, 8, 1), backend=backend, fuse=fuse)
    nb.Trainer(model, optimizer=nb.Adam(1e-2)).fit(small, 2, progress=False)
    tuned = nb.Sequential([*model[:-1], nb.Dense(5).named("head")])
    tuned.build((8, 8, 1), backend=backend, fuse=fuse, seed=1)
    trunk = tuned[:-1]
    nb.freeze(trunk)
    before, head = state_of(trunk), state_of(tuned[-1:])
    assert before == state_of(model[:-1])
    trainer = nb.Trainer(tuned, optimizer=nb.AdamW(1e-2, weight_decay=0.1), **options)
    start = trainer.evaluate(*large)["accuracy"]
    features = trunk.predict(large[0])
    trainer.fit(large, 2, progress=False)
    assert state_of(trunk) == before
    assert state_of(tuned[-1:]) != head
    assert trainer.evaluate(*large)["accuracy"] > start + 0.2
    assert np.array_equal(trunk.predict(large[0]), features)


def test_training_a_head_is_training_on_the_features(digits):
    """In training too, a frozen trunk gives what it predicts, so that the head alone, on these features, takes the same steps."""
    _, (x, y) = digits
    model = nb.Sequential([*layers_of_a_trunk(), nb.Dense(5)])
    model.build((8, 8, 1), backend="serial", fuse=False)
    nb.Trainer(model, optimizer=nb.Adam(1e-2)).fit((x, y), 1, progress=False)
    nb.freeze(model[:-1])
    features = model[:-1].predict(x)
    head = nb.Sequential([nb.Dense(5)])
    head.build(features.shape[1:], backend="serial")
    for name, param in head.layers[0].params.items():
        param.value[:] = model[-1].params[name].value
    for each, inputs in ((model, x), (head, features)):
        nb.Trainer(each, optimizer=nb.SGD(0.1)).fit((inputs, y), 2, progress=False)
    assert state_of(model[-1:]) == state_of(head)


@pytest.mark.parametrize("replay", [True, False])
def test_freezing_between_steps_is_noticed(data, replay):
    """Also by recorded passes and by the optimiser."""
    trainer = small_trainer(replay=replay)
    for _ in range(4):
        trainer.train_batch(*data)
    nb.freeze(trainer.model, "conv*", "batchnorm")
    before = state_of(trainer.model[:5])
    for _ in range(4):
        trainer.train_batch(*data)
    assert state_of(trainer.model[:5]) == before
    nb.unfreeze(trainer.model)
    for _ in range(4):
        trainer.train_batch(*data)
    assert all(array != before[name] for name, array in state_of(trainer.model[:5]).items())


def test_a_learning_rate_of_the_head(data):
    """Groups of the optimiser: the trunk learns a tenth as fast, without momentum exactly."""
    steps = []
    for groups in ({}, {"[0-4].*": {"lr_scale": 0.125}}):
        trainer = small_trainer(optimizer=nb.SGD(0.5, groups=groups))
        before = {name: param.value.copy() for name, param in trainer.model.params.items()}
        trainer.train_batch(*data)
        steps.append({name: param.value - before[name] for name, param in trainer.model.params.items()})
    for name, step in steps[0].items():
        scale = 1 if name.startswith("7.") else 0.125
        assert_close(before[name] + steps[1][name], before[name] + scale * step, "elementwise", what=name)


# ------------------------------------------------------------------------------------------------------- checkpoints


def test_a_restored_run_is_frozen_as_it_was(data, tmp_path):
    whole, first, second = small_trainer(), small_trainer(), small_trainer()
    for trainer in (whole, first):
        nb.freeze(trainer.model, "conv*", "*.moving_*")
        trainer.fit(data, 1, 35)
    first.save(tmp_path / "run")
    nb.freeze(second.model, "dense")
    with pytest.warns(
        UserWarning, match=r"settings differ: 0\.conv2d\.weight\.trainable is False as in the file, .*, and 5 more switches$"
    ):
        second.restore(tmp_path / "run")
    assert off(second.model) == off(first.model) == CONV | INNER | STATISTICS
    for trainer in (whole, second):
        trainer.fit(data, 3, 35)
    assert bits(second) == bits(whole)


def test_files_that_say_nothing_or_nonsense(data):
    first, second = small_trainer(), small_trainer()
    nb.freeze(first.model, "dense")
    state = first.state()
    nb.freeze(second.model, "conv*")
    second.optimizer.prepare(second.model.params)
    before = bits(second)
    for value, words in (
        ("dense", "damaged.*off"),
        (["7.dense.trainable"], "damaged: unknown switch '7.dense.trainable': did you mean '7"),
    ):
        settings = state.run["settings"] | {"off": value}
        with pytest.raises(CheckpointError, match=words):
            second.load_state(state._replace(run=state.run | {"settings": settings}))
    assert (bits(second), off(second.model)) == (before, CONV | INNER)
    older = {name: value for name, value in state.run["settings"].items() if name != "off"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second.load_state(state._replace(run=state.run | {"settings": older}))
    assert off(second.model) == CONV | INNER
