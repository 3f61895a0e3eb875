"""Reprs that can be pasted back as code."""

import copy
import gc
import inspect
import pickle
import weakref
from dataclasses import dataclass

import numpy as np
import pytest

import nbnet as nb
from nbnet.code_repr import CodeRepr


class Block(CodeRepr):
    """An argument without a default, one that is kept under another name, one that is converted, and a keyword."""

    def __init__(self, layers, rate=0.5, size=3, *, name=None):
        self.layers = list(layers)
        self.rate = float(rate)
        self.size = (size, size)
        self._name = name


class MyAdam(nb.Adam):
    def __init__(self, lr, extra=None, **options):
        super().__init__(lr, **options)
        self.extra = extra


class LateRate(nb.SGD):
    def __init__(self, nesterov=True, lr=0.5):
        super().__init__(lr, momentum=0.9, nesterov=nesterov)


class Several(CodeRepr):
    def __init__(self, *parts):
        self.parts = parts


@dataclass(repr=False)
class Data(CodeRepr):
    size: int
    scale: float = 1.0


LONG = "Block([\n" + "".join(f"    nb.SGD({0.01 * i}, momentum=0.9, weight_decay=0.125),\n" for i in (1, 2, 3)) + "], name='long')"
REPRS = {
    "nb.Adam(0.001)": nb.Adam(),
    "nb.Adam(0.001, weight_decay=0.1)": nb.Adam(weight_decay=0.1),
    "nb.AdamW(0.5)": nb.AdamW(0.5, 0.9, weight_decay=0.01),
    "nb.SGD(0.01, momentum=0.9, nesterov=True)": nb.SGD(momentum=0.9, nesterov=True),
    "nb.RMSProp(1.0, rho=0.5)": nb.RMSProp(1, rho=0.5),
    "nb.callbacks.EarlyStopping(patience=3, restore_best=True)": nb.callbacks.EarlyStopping(patience=3, restore_best=True),
    "nb.callbacks.ModelCheckpoint('best', save_best_only=False)": nb.callbacks.ModelCheckpoint("best", save_best_only=False),
    "nb.callbacks.ReduceLROnPlateau(factor=0.5)": nb.callbacks.ReduceLROnPlateau(factor=0.5),
    "nb.callbacks.CSVLogger('log')": nb.callbacks.CSVLogger("log"),
    "nb.callbacks.TimeLimit(60.0)": nb.callbacks.TimeLimit(60),
    "nb.losses.mean_squared_error": nb.losses.mean_squared_error,
    "nb.losses.Huber(delta=0.5)": nb.losses.Huber(0.5),
    "nb.losses.SoftmaxCrossEntropy(class_weight=(1.0, 2.0), reduction='sum')": nb.losses.SoftmaxCrossEntropy(
        class_weight=[1, 2], reduction="sum"
    ),
    "MyAdam(0.1, extra='x', beta1=0.5)": MyAdam(0.1, "x", beta1=0.5),
    "LateRate(lr=0.5)": LateRate(),
    "LateRate(nesterov=False, lr=0.25)": LateRate(False, 0.25),
    "Block([], size=2)": Block([], size=2),
    "Block([nb.SGD(0.01), Block([1, 2])], rate=0.25)": Block([nb.SGD(), Block(iter([1, 2]))], 0.25),
    LONG: Block([nb.SGD(0.01 * i, momentum=0.9, weight_decay=0.125) for i in (1, 2, 3)], name="long"),
    "Several(1, 'a', nb.SGD(0.01))": Several(1, "a", nb.SGD()),
    "Data(3, scale=2.0)": Data(3, 2.0),
}


@pytest.mark.parametrize("code", REPRS, ids=[code.partition("\n")[0] for code in REPRS])
def test_a_repr_is_code_that_gives_the_same_repr(code):
    thing = REPRS[code]
    assert repr(thing) == code
    assert repr(eval(code, {"nb": nb, **globals()})) == code
    for twin in (copy.copy(thing), copy.deepcopy(thing), pickle.loads(pickle.dumps(thing))):
        assert type(twin) is type(thing)
        assert repr(twin) in (code, f"{type(thing).__name__}(mean=True)", f"{type(thing).__name__}(True)")


def test_nested_lists_are_indented():
    inner = Block([nb.SGD(0.1, momentum=0.9, weight_decay=0.125)] * 3)
    text = repr(Block([inner, inner]))
    assert text.splitlines()[:3] == ["Block([", "    Block([", "        nb.SGD(0.1, momentum=0.9, weight_decay=0.125),"]
    assert text.splitlines()[-2:] == ["    ]),", "])"]
    assert repr(eval(text, {"nb": nb, "Block": Block})) == text


def test_attributes_that_change_are_shown():
    adam, block = nb.Adam(1), Block([1])
    adam.lr, adam.weight_decay = 0.25, 0.5
    block.layers.append(2)
    assert repr(adam) == "nb.Adam(0.25, weight_decay=0.5)"
    assert repr(block) == "Block([1, 2])"


def own_loss(prediction, target, *, rows, backend):
    """A loss of a user's."""


def test_arrays_and_functions_as_arguments():
    assert repr(Block([], rate=1, name=np.float64)) == "Block([], rate=1.0, name=float64)"
    assert repr(Block([], name=np.arange(2))) == "Block([], name=array([0, 1]))"
    assert repr(nb.losses.get(own_loss)) == "nb.losses.FunctionLoss(own_loss)"


def test_signatures_are_those_of_the_constructor():
    assert list(inspect.signature(nb.Adam).parameters) == ["lr", "beta1", "beta2", "eps", "weight_decay", "amsgrad", "groups"]
    assert list(inspect.signature(Data).parameters) == ["size", "scale"]
    assert list(inspect.signature(nb.losses.mean_squared_error).parameters) == ["prediction", "target", "sample_weight", "rows", "backend"]
    with pytest.raises(TypeError):
        nb.losses.KLDivergence("mean", 3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'rate'"):
        nb.Adam(rate=1)


def run(code):
    """The variables of code that a user pastes."""
    found = {"nb": nb}
    exec(code, found)
    return found


def test_a_trainer_is_code_with_its_model():
    model = nb.Sequential([nb.Conv2D(4, 3), nb.BatchNorm(activation="leaky_relu", slope=0.2), nb.Flatten(), nb.Dense(3)])
    model.build((6, 6, 1), backend="serial", dtype="float64", seed=7, fuse=False)
    trainer = nb.Trainer(model, optimizer=nb.Adam(1e-2), schedule=nb.schedules.cosine(final=0.1), clip_norm=2.0, seed=3, replay=False)
    again = run(repr(trainer))["trainer"]
    assert repr(again) == repr(trainer)
    assert again.model.state().keys() == model.state().keys()
    assert all((again.model.state()[name] == array).all() for name, array in model.state().items())
    assert (again.schedule(0.5), again.clip_norm, again.seed, again.replay) == (trainer.schedule(0.5), 2.0, 3, False)


def test_options_that_are_objects_of_their_own():
    for code in (
        "nb.BatchNorm(renorm=nb.Renorm(rmax=3, dmax=5))",
        "nb.BatchNorm(gamma_regularizer=nb.regularizers.l2(0.1))",
        "nb.Dense(3, weight_initializer=nb.initializers.normal(0.1))",
        "nb.Dropout(0.3, seed=5)",
        "nb.schedules.warm_up(0.1, then=nb.schedules.cosine())",
    ):
        made = eval(code)
        assert repr(made) == code
        if isinstance(made, nb.Layer):
            made.build((4,), seed=7)
            assert repr(made) == code


def test_arguments_are_not_kept_alive():
    model = nb.Sequential([nb.Dense(3), nb.Dense(2)])
    model.build((4,), backend="serial")
    trainer = nb.Trainer(model, optimizer=nb.Adam(1e-3))
    gone = weakref.ref(model.layers[0]), weakref.ref(trainer.optimizer), weakref.ref(model)
    trainer.optimizer, model = nb.SGD(0.1), None
    trainer.model = nb.Sequential([nb.Dense(2)])
    trainer.model.build((4,), backend="serial")
    gc.collect()
    assert [reference() for reference in gone] == [None] * 3
    assert "nb.SGD(0.1)" in repr(trainer)


def test_copies_and_objects_made_without_a_constructor():
    model = nb.Sequential(nb.Dense(n) for n in (3, 2))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert repr(other) == repr(model) == "nb.Sequential([nb.Dense(3), nb.Dense(2)])"
    assert repr(nb.Dense.__new__(nb.Dense)) == "<nb.Dense>"
