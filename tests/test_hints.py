"""What users of other libraries write: it works, or one line says what to write instead. Nothing has changed then."""

import inspect

import numpy as np
import pytest

import nbnet as nb
from nbnet import hints
from nbnet.errors import CallError, DTypeError, MethodError


class Loader:
    """Batches, one by one."""

    def __iter__(self):
        yield from ()


class Examples:
    """Single examples, as in a data set of PyTorch."""

    def __len__(self):
        return len(X)

    def __getitem__(self, row):
        return X[row], Y[row]


class Tensor:
    """An array that refuses to be one, as PyTorch's with a gradient does."""

    shape = (12, 2)

    def __array__(self, *args, **options):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.\nUse tensor.detach().numpy() instead.")


X, Y = np.zeros((12, 2), np.float32), np.arange(12) % 3


@pytest.fixture
def model():
    model = nb.Sequential([nb.Dense(3)])
    model.build((2,), backend="serial")
    return model


@pytest.fixture
def trainer(model):
    return nb.Trainer(model, optimizer="adam")


FITS = {
    "x, y, epochs=1": r"Trainer.fit\(\) got multiple values for argument 'epochs': write fit\(\(x, y\), epochs=10\)$",
    "x, y, 1": r"data: expected a pair \(x, y\) of arrays, got ndarray: write fit\(\(x, y\), epochs=10\)$",
    "(x, y)": r"missing 1 required positional argument: 'epochs': write fit\(\(x, y\), epochs=10\)$",
    "(x, y, y, y), epochs=1": r"got 4 parts: for weights of rows write \(x, y, sample_weight\)$",
    "((x, y), (x, y), ['a']), epochs=1": r"got 3 parts: write \(x, y\), \(x_test, y_test\), names = data, then fit\(\(x, y\), validation=",
    "Loader(), epochs=1": r"data: Loader does not tell how many batches it has: give steps_per_epoch=$",
    "Examples(), epochs=1": r"got Examples: for a data set of single examples give a loader of its batches$",
    "(x, y), epochs=1, validation_data=(x, y)": r"unexpected keyword argument 'validation_data': write validation=\(x, y\)$",
    "(x, y), epochs=1, verbose=0": r"'verbose': write progress=True or progress=False$",
    "(x, y), epochs=1, bacth_size=2": r"'bacth_size': expected data, epochs, batch_size, validation, .*, steps_per_epoch$",
    "(x, y[:, None]), epochs=1": r"labels have shape \(12, 1\): expected \(12,\), .*; use np.asarray\(y\).reshape\(-1\)$",
    "(x, 2 * np.eye(3)[y]), epochs=1": r"probabilities of row 0 sum to 2: .*; for several .* use loss='binary_cross_entropy'$",
    "(x, y.astype(float)), epochs=1": r"labels have dtype float64: expected whole numbers, 0 to 2; use np.asarray\(y\).astype\('int64'\)$",
    "(Tensor(), y), epochs=1": r"data: x is not an array: Can't call numpy\(\) on Tensor that requires grad. Use tensor",
}


@pytest.mark.parametrize("arguments", FITS)
def test_fit(trainer, arguments):
    with pytest.raises(nb.NbnetError, match=FITS[arguments]) as caught:
        eval(
            f"trainer.fit({arguments})",
            {"trainer": trainer, "x": X, "y": Y, "np": np, "Loader": Loader, "Examples": Examples, "Tensor": Tensor},
        )
    assert "\n" not in str(caught.value)
    assert trainer.step == 0


def test_labels_of_other_types(trainer):
    class Series(list):
        def __array__(self, *args, **options):
            return np.array(list(self))

    trainer.fit((X, Y.tolist()), epochs=1, progress=False)
    trainer.fit((X, Series(Y)), epochs=2, progress=False)
    assert trainer.epoch == 2


CONSTRUCTORS = {
    "nb.LayerNorm(activation='relu')": "LayerNorm got an unexpected keyword argument 'activation': write the activation as the next layer",
    "nb.GroupNorm(3, activation='relu')": "write the activation as the next layer",
    "nb.Dense(3, input_shape=(2,))": r"write model.build(input_shape)",
    "nb.Conv2D(3, 3, strides=2)": "write stride=",
    "nb.Conv2D(3, 3, kernel_initializer='he_normal')": "write weight_initializer=",
    "nb.Dense(3, bias=False)": "write use_bias=",
    "nb.Dropout(p=0.5)": "write rate=",
    "nb.BatchNorm(num_features=3)": "leave it out: build(input_shape) finds it",
    "nb.Adam(learning_rate=0.1)": "in the optimizer write lr=",
    "nb.Adam(betas=(0.9, 0.99))": "write beta1=, beta2=",
    "nb.Trainer(model, lr=0.1)": "write optimizer=nb.Adam(lr)",
    "nb.Trainer(model, optimizer='adm')": "unknown optimizer 'adm': did you mean 'adam'?",
    "nb.Trainer(model)": "expected an optimiser such as nb.Adam(1e-3), or a name such as 'adam'",
    "nb.losses.get('mse')": "did you mean 'mean_squared_error'?",
    "nb.losses.get('categorical_crossentropy')": "did you mean 'softmax_cross_entropy'?",
    "nb.losses.get('sparse_categorical_crossentropy')": "did you mean 'softmax_cross_entropy'?",
    "nb.losses.get('cross_entropy')": "did you mean 'softmax_cross_entropy'?",
    "nb.initializers.get('xavier')": "did you mean 'glorot_uniform'?",
    "nb.get_backend('gpu')": "did you mean 'cuda'?",
    "model(X)": "a model is not called: write model.predict(x), or y, saved = model.forward(",
    "model.fit(X, Y)": "Sequential has no attribute 'fit': write trainer = nb.Trainer(model, loss=..., ",
    "model.compile(loss='mse')": "has no attribute 'compile': write trainer = nb.Trainer(",
    "model.parameters()": "write model.params, a dict",
    "model.predict(X, verbose=0)": "unexpected keyword argument 'verbose': expected x, batch_size",
    "nb.LayerNorm(bias=False)": "unexpected keyword argument 'bias': expected ",
    "nb.Trainer(model, learning_rate=0.1)": "in the optimizer write lr=",
    "model.build(2, device='cuda')": 'write model.build(input_shape, backend="cuda")',
    "model.predict(Tensor())": "x is not an array: Can't call numpy()",
}


@pytest.mark.parametrize("code", CONSTRUCTORS)
def test_other_calls(model, code):
    with pytest.raises(nb.NbnetError) as caught:
        eval(code, {"nb": nb, "model": model, "X": X, "Y": Y, "Tensor": Tensor})
    assert CONSTRUCTORS[code] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_errors_are_those_of_python_too(model):
    with pytest.raises(TypeError):
        nb.LayerNorm(activation="relu")
    assert issubclass(CallError, TypeError)
    assert issubclass(MethodError, AttributeError)
    assert not hasattr(model, "fit")
    assert getattr(model, "nothing", 3) == 3
    with pytest.raises(DTypeError):
        model.predict(Tensor())


def test_errors_inside_a_call_stay_what_they_are(trainer):
    class Broken(nb.callbacks.Callback):
        def on_batch_end(self, trainer):
            len(3)

    with pytest.raises(TypeError, match="len") as caught:
        trainer.fit((X, Y), epochs=1, callbacks=[Broken()], progress=False)
    assert not isinstance(caught.value, nb.NbnetError)


def test_signatures_stay():
    assert list(inspect.signature(nb.Trainer.fit).parameters)[:3] == ["self", "data", "epochs"]


def test_models_have_none_of_the_methods_that_hints_replace():
    assert [name for name in hints.METHODS if hasattr(nb.Sequential, name)] == []
