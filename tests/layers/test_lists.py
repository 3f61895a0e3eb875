"""A Sequential as a list of its layers: positions, slices, names, and its summary."""

import copy
import pickle

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, BuildError


def layers():
    return [
        nb.Conv2D(4, 3).named("stem"),
        nb.BatchNorm(),
        nb.ReLU(),
        nb.Concat([nb.Conv2D(2, 1).named("left"), [nb.Conv2D(2, 3)]]).named("mixed"),
        nb.Flatten().named("flat"),
        nb.Dropout(0.3),
        nb.Dense(3).named("head"),
    ]


def built(**options):
    model = nb.Sequential(layers())
    model.build((4, 4, 1), **{"backend": "serial", "dtype": "float64", "seed": 2} | options)
    return model


def test_a_model_is_a_sequence():
    model = built()
    assert len(model) == 7
    assert [*model] == model.layers
    assert model[0] is model.layers[0]
    assert model[-1] is model["head"] is model.layers[6]
    assert model["1.batchnorm"] is model[1]
    assert model[3] in model
    with pytest.raises(IndexError):
        model[7]
    for name, message in (("sten", "unknown layer 'sten': did you mean 'stem'"), ("0.conv2d", "unknown layer '0.conv2d'")):
        with pytest.raises(ArgumentError, match=message):
            model[name]
        with pytest.raises(ArgumentError, match=message):
            model.trunk(until=name)


def test_a_slice_shares_layers_and_changes_nothing(rng):
    model, x = built(), rng.normal(size=(3, 4, 4, 1))
    names, before = [layer.name for layer in model.walk()], {name: id(array) for name, array in model.state().items()}
    y = x
    for part in (model[:3], model[3:5], model[5:]):
        assert type(part) is nb.Sequential
        y = part.predict(y)
    assert_close(y, model.predict(x), "exact")
    assert model[:3].layers[0] is model[0]
    assert model[3:].params["head.weight"] is model.params["head.weight"]
    assert model[1:3].input_shape == model[0].output_shape
    assert [layer.name for layer in model.walk()] == names
    assert {name: id(array) for name, array in model.state().items()} == before


def test_a_slice_has_the_masks_of_the_model(rng):
    """Random numbers follow from the layer's place in the model, which a slice leaves."""
    model, x = built(), rng.normal(size=(3, 4, 4, 1))
    twin = copy.deepcopy(model)
    wanted, _ = model.forward(x, train=True)
    got, _ = twin[3:].forward(twin[:3].forward(x, train=True)[0], train=True)
    assert_close(got, wanted, "exact")


def test_slices_that_cannot_run_are_not_built(rng):
    assert nb.Sequential(layers())[:2].input_shape is None
    model = built()
    assert model[::3].input_shape is None
    assert model[3:3].input_shape is None
    assert len(model[::3]) == 3
    with pytest.raises(BuildError, match="call build"):
        model[::-1].forward(rng.normal(size=(3, 4, 4, 1)))


def test_a_trunk_gets_a_new_head(rng):
    model, x = built(), rng.normal(size=(6, 4, 4, 1))
    trunk = model.trunk(until="flat")
    assert [layer.name for layer in trunk] == ["stem", "1.batchnorm", "2.relu", "mixed", "flat"]
    features = trunk.predict(x)
    other = nb.Sequential([*trunk, nb.Dense(5).named("head")])
    other.build((4, 4, 1), backend="serial", dtype="float64")
    assert_close(other[:-1].predict(x), features, "exact")
    before = {name: param.value.copy() for name, param in model.params.items()}
    nb.Trainer(other, optimizer=nb.SGD(0.1)).train_batch(x, np.arange(6) % 5)
    changed = [name for name, param in model.params.items() if not np.array_equal(param.value, before[name])]
    assert changed == [name for name in model.params if not name.startswith("head")]


def test_a_slice_trains_and_is_copied(rng):
    model = built()
    part = model[4:]
    trainer = nb.Trainer(part, optimizer=nb.SGD(0.1))
    x, y = rng.normal(size=(6, 4, 4, 4)), np.arange(6) % 3
    losses = [trainer.train_batch(x, y)["loss"] for _ in range(20)]
    assert losses[-1] < losses[0]
    for twin in (copy.deepcopy(part), pickle.loads(pickle.dumps(part))):
        assert_close(twin.predict(x), part.predict(x), "exact")
        assert twin.params["head.weight"].value is not part.params["head.weight"].value


# -------------------------------------------------------------------------------------------------------------------- names


def test_names_are_part_of_paths(tmp_path, rng):
    model, x = built(), rng.normal(size=(2, 4, 4, 1))
    assert list(model.params) == [
        *("stem.weight", "stem.bias", "1.batchnorm.gamma", "1.batchnorm.beta", "mixed.left.weight", "mixed.left.bias"),
        *("mixed.1.sequential.0.conv2d.weight", "mixed.1.sequential.0.conv2d.bias", "head.weight", "head.bias"),
    ]
    assert model["mixed"].branches[0].name == "mixed.left"
    model.save_weights(tmp_path / "w.safetensors")
    other = built(seed=7)
    other.load_weights(tmp_path / "w.safetensors")
    assert_close(other.predict(x), model.predict(x), "exact")
    again = eval(repr(model), {"nb": nb})
    assert repr(again) == repr(model)
    assert repr(model[0]) == "nb.Conv2D(4, 3).named('stem')"
    for twin in (again, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin.build((4, 4, 1), backend="serial", dtype="float64", rebuild=True)
        assert list(twin.params) == list(model.params)


def test_a_residual_keeps_its_own_names():
    model = nb.Sequential([nb.Residual([nb.Dense(3)], nb.Dense(3).named("side"))])
    model.build((3,), backend="numpy")
    assert [name for name in model.params if "weight" in name] == ["0.residual.body.0.dense.weight", "0.residual.shortcut.weight"]


@pytest.mark.parametrize("name", ["", "a.b", "a b", None, 3, "optimizer", "average"])
def test_what_is_no_name(name):
    layer = nb.Dense(3)
    with pytest.raises(ArgumentError, match=r"expected a word such as 'stem', of letters, digits, '_' and '-'"):
        layer.named(name)
    assert layer.label == ""


def test_names_are_unique_and_come_before_build():
    model = nb.Sequential([nb.Dense(3).named("a"), nb.Dense(3).named("a")])
    with pytest.raises(ArgumentError, match="sequential has two layers with the name 'a': expected another name for each"):
        model.build((3,), backend="numpy")
    assert model[0].input_shape is None
    same = nb.Dense(3).named("a")
    model = nb.Sequential([same, nb.Concat([nb.Dense(3).named("a"), nb.Identity()]), nb.Flatten()])
    model.build((3,), backend="numpy")
    assert [name for name in model.params if "weight" in name] == ["a.weight", "1.concat.a.weight"]
    twice = nb.Sequential([same, nb.Tanh(), same])
    twice.build((3,), backend="numpy")
    assert list(twice.params) == ["a.weight", "a.bias"]
    with pytest.raises(BuildError, match="layer a is built, and cannot become 'b': name it before build"):
        same.named("b")
    assert same.label == "a"


# ------------------------------------------------------------------------------------------------------------------ summary


def rows(text):
    """The cells of each row of a printed table."""
    lines = [line[1:-1].split("│") for line in text.splitlines() if line.startswith("│")]
    return [[first[1:].rstrip(), *(cell.strip() for cell in others)] for first, *others in lines]


def test_a_summary_shows_branches(capsys):
    shared = nb.Dense(3)
    model = nb.Sequential(
        [
            nb.Conv2D(4, 3, stride=2).named("stem"),
            nb.ReLU(),
            nb.Concat([nb.Conv2D(2, 1), [nb.Conv2D(2, 3), nb.BatchNorm()]]),
            nb.GlobalAvgPool2D(),
            nb.Dense(3),
            shared,
            nb.Parallel([shared, nb.Dense(2)]),
        ]
    )
    model.build((6, 6, 1), backend="numpy")
    model.summary()
    assert rows(capsys.readouterr().out) == [
        ["stem", "(N, 3, 3, 4)", "40", "", "324", "0"],
        ["1.relu", "(N, 3, 3, 4)", "", "", "", "0"],
        ["2.concat", "(N, 3, 3, 4)", "", "", "", "1"],
        ["  0.conv2d", "(N, 3, 3, 2)", "10", "", "72", "0"],
        ["  1.sequential", "(N, 3, 3, 2)", "", "", "", "1"],
        ["    0.conv2d", "(N, 3, 3, 2)", "74", "", "648", "0"],
        ["    1.batchnorm", "(N, 3, 3, 2)", "4", "5", "", "0"],
        ["3.globalavgpool2d", "(N, 4)", "", "", "", "2"],
        ["4.dense", "(N, 3)", "15", "", "12", "3"],
        ["5.dense", "(N, 3)", "12", "", "9", "4"],
        ["6.parallel", "(N, 3), (N, 2)", "", "", "", "5"],
        ["  0.dense", "(N, 3)", "as 5.dense", "", "9", "0"],
        ["  1.dense", "(N, 2)", "8", "", "6", "1"],
        ["total", "", "163", "5", "1,080", ""],
    ]


def test_a_summary_shows_a_shared_trunk_once(capsys):
    model = nb.models.siamese()
    model.build(((8, 8, 1), (8, 8, 1)), backend="numpy")
    model.summary()
    got = rows(capsys.readouterr().out)
    assert [first for first, *_ in got][-5:] == ["    10.tanh", "  1.sequential", "1.multiply", "2.dense", "total"]
    assert got[-4] == ["  1.sequential", "(N, 32)", "as 0.parallel.0.sequential", "", "", "1"]
    assert got[-1][1:] == ["", "9,042", "98", "174,144", ""]
