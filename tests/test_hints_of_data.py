"""What error messages say about data is executed here, and gives what the model should see. Nothing has changed before that."""

import re

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, NonFiniteError

RNG = np.random.Generator(np.random.Philox(3))
N = 12
PIXELS = RNG.integers(0, 256, (N, 4, 3, 1), np.uint8)
PIXELS[0, :2, 0, 0] = 0, 255
SCALED = PIXELS.astype(np.float32) / np.float32(255)
LABELS = np.arange(N) % 3


def trainer_of(shape, classes=3, loss="softmax_cross_entropy", dtype="float32"):
    model = nb.Sequential([nb.Flatten(), nb.BatchNorm(), nb.Dense(classes)])
    model.build(shape, backend="serial", dtype=dtype)
    return nb.Trainer(model, loss=loss, optimizer=nb.SGD(0.1))


CALLS = {
    "predict": lambda t, x, y: t.model.predict(x),
    "predict_proba": lambda t, x, y: t.model.predict_proba(x),
    "forward": lambda t, x, y: t.model.forward(x),
    "train": lambda t, x, y: t.model.forward(x, train=True),
    "evaluate": lambda t, x, y: t.evaluate(x, y),
    "fit": lambda t, x, y: t.fit((x, y), 1, progress=False),
    "validation": lambda t, x, y: t.fit((np.zeros((N, *t.model.input_shape), np.uint8), LABELS), 1, validation=(x, y), progress=False),
    "train_batch": lambda t, x, y: t.train_batch(x, y),
    "recalibrate": lambda t, x, y: nb.recalibrate(t.model, x),
    "report": lambda t, x, y: nb.batch_norm_report(t.model, x, show=False),
}


def refused(trainer, call, x, y=LABELS):
    """The message; nothing has changed."""
    before = {name: array.copy() for name, array in trainer.model.state().items()}
    with pytest.raises(nb.NbnetError) as caught:
        CALLS[call](trainer, x, y)
    message = str(caught.value)
    assert "\n" not in message
    assert trainer.step == 0
    assert all(np.array_equal(before[name], array) for name, array in trainer.model.state().items())
    return message


def fix(message, x, which=0):
    """What the code in a hint makes of x."""
    found = re.findall(r"(?:\buse|\bis|here:) ((?:np\.asarray\(x\)|x).*?)(?=$|;|, for other)", message)
    assert found, message
    return eval(found[which], {"x": x, "np": np})


# --------------------------------------------------------------------------------------------------------------- numbers

# what is given, and what the model should see
NUMBERS = {
    "int64 pixels": (PIXELS.astype(np.int64), SCALED),
    "int32 pixels": (PIXELS.astype(np.int32), SCALED),
    "uint16 with 8-bit pixels": (PIXELS.astype(np.uint16), SCALED),
    "int8 pixels": ((PIXELS // 2).astype(np.int8), (PIXELS // 2) / np.float32(255)),
    "lists of pixels": (PIXELS.tolist(), SCALED),
    "text of pixels": (PIXELS.astype(str), SCALED),
    "objects with pixels": (PIXELS.astype(object), SCALED),
    "float16 pixels": (PIXELS.astype(np.float16), SCALED),
    "float16 from 0 to 1": (SCALED.astype(np.float16), SCALED.astype(np.float16)),
    "a mask": (PIXELS > 127, PIXELS > 127),
    "a mask in float16": ((PIXELS > 127).astype(np.float16), PIXELS > 127),
    "signed numbers": (PIXELS.astype(int) - 128, PIXELS.astype(int) - 128),
    "numbers beyond 255": (PIXELS.astype(int) * 4, PIXELS.astype(int) * 4),
    "16-bit pixels": (PIXELS.astype(np.uint16) * 257, SCALED),
    "big-endian": (SCALED.astype(">f4"), SCALED),
    "complex": (SCALED.astype(np.complex64), SCALED),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers(kind, call):
    given, wanted = NUMBERS[kind]
    trainer = trainer_of((4, 3, 1))
    x = fix(refused(trainer, call, given), given)
    assert_close(trainer.model.as_input(x), wanted.astype(np.float32), "elementwise", "float32")
    CALLS[call](trainer, x, LABELS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_for_a_layer_alone(kind, dtype):
    """It does not scale uint8."""
    given, wanted = NUMBERS[kind]
    layer = nb.Conv2D(1, 1, use_bias=False)
    layer.build((4, 3, 1), backend="serial", dtype=dtype)
    layer.params["weight"].value[:] = 1
    with pytest.raises(nb.NbnetError) as caught:
        layer.forward(given)
    x = fix(str(caught.value), given)
    assert_close(layer.forward(x)[0], wanted.astype(dtype), "elementwise", "float32")
    assert_close(layer.forward((PIXELS / 255).astype(dtype))[0], SCALED, "elementwise", "float32")
    with pytest.raises(nb.NbnetError) as caught:
        layer.forward(PIXELS)
    assert_close(layer.forward(fix(str(caught.value), PIXELS))[0], SCALED, "elementwise", "float32")


def test_numbers_that_are_not_pixels():
    """The second half of the hint: whole numbers of a table are no pixels."""
    trainer, x = trainer_of((4, 3, 1)), PIXELS.astype(int)
    code = re.search(r", for other numbers use (.*)$|, for other numbers (.*)$", refused(trainer, "predict", x)).group(2)
    assert np.array_equal(trainer.model.as_input(eval(code, {"x": x})), x)


def test_a_hint_follows_from_all_rows():
    """Not from those of the first batch."""
    x = np.zeros((600, 4, 3, 1), int)
    x[-1] = 256
    trainer, y = trainer_of((4, 3, 1)), np.arange(600) % 3
    for call in CALLS:
        assert fix(refused(trainer, call, x, y), x).max() == 256


@pytest.mark.parametrize("kind", ["int64 pixels", "lists of pixels", "a mask", "float16 from 0 to 1", "big-endian", "complex"])
def test_numbers_of_functional_calls(kind):
    """They scale nothing."""
    given, _ = NUMBERS[kind]
    with pytest.raises(nb.NbnetError) as caught:
        nb.functional.avg_pool2d_forward(given, 1, backend="serial")
    y, _ = nb.functional.avg_pool2d_forward(fix(str(caught.value), given), 1, backend="serial")
    assert np.array_equal(y, np.asarray(given).real.astype(np.float32))


@pytest.mark.parametrize("kind", ["int64 pixels", "lists of pixels", "a mask", "text of pixels", "float16 from 0 to 1", "16-bit pixels"])
def test_numbers_of_check_arrays(kind):
    given, wanted = NUMBERS[kind]
    with pytest.raises(nb.NbnetError) as caught:
        nb.preprocessing.check_arrays(given, LABELS, 3)
    x, _ = nb.preprocessing.check_arrays(fix(str(caught.value), given), LABELS, 3)
    assert_close(trainer_of((4, 3, 1)).model.as_input(x), wanted.astype(np.float32), "elementwise", "float32")


@pytest.mark.parametrize(
    ("value", "said"),
    [("cat", "'cat' is not a number"), (None, "None is not a number"), ({}, "{} is not a number"), (np.nan, "nan is not a number")],
    ids=["text", "none", "dict", "nan"],
)
def test_what_is_no_number(value, said):
    x = PIXELS.astype(object)
    x[3, 1, 2, 0] = value
    for call in CALLS:
        assert refused(trainer_of((4, 3, 1)), call, x).endswith(f"; {said}")


# ---------------------------------------------------------------------------------------------------------------- shapes

COLOUR = RNG.random((N, 4, 3, 2), np.float32)
GREY = COLOUR[..., :1]
FLAT = COLOUR[:, 0, 0]
# the shape of a row, what is given, what the model should see, and which of the hints leads to it
SHAPES = {
    "one image": ((4, 3, 2), COLOUR[1], COLOUR[1:2], 0),
    "one grey image": ((4, 3, 1), GREY[1], GREY[1:2], 0),
    "one grey image without channels": ((4, 3, 1), GREY[1, ..., 0], GREY[1:2], 0),
    "grey images without channels": ((4, 3, 1), GREY[..., 0], GREY, 0),
    "channels first": ((4, 3, 2), COLOUR.transpose(0, 3, 1, 2), COLOUR, 0),
    "grey, channels first": ((4, 3, 1), GREY.transpose(0, 3, 1, 2), GREY, 0),
    "one image, channels first": ((4, 3, 2), COLOUR[1].transpose(2, 0, 1), COLOUR[1:2], 0),
    "one grey image, channels first": ((4, 3, 1), GREY[1].transpose(2, 0, 1), GREY[1:2], 0),
    "grey images for colour": ((4, 3, 2), GREY, np.concatenate([GREY, GREY], axis=-1), 0),
    "rows of pixels": ((4, 3, 1), GREY.reshape(N, -1), GREY, 0),
    "one row of pixels": ((4, 3, 1), GREY[1].reshape(-1), GREY[1:2], 0),
    "rows of pixels in colour": ((4, 3, 2), COLOUR.reshape(N, -1), COLOUR, 0),
    "rows of channels": ((4, 3, 2), COLOUR.transpose(0, 3, 1, 2).reshape(N, -1), COLOUR, 1),
    "one vector": ((2,), FLAT[1], FLAT[1:2], 0),
    "one column": ((1,), FLAT[:, 0], FLAT[:, :1], 0),
    "one number": ((1,), FLAT[1, 0], FLAT[1:2, :1], 0),
    "images for flat rows": ((12,), GREY[..., 0], GREY.reshape(N, -1), 0),
    "one image for flat rows": ((12,), GREY[1, ..., 0], GREY[1:2].reshape(1, -1), 0),
    "sequences without channels": ((4, 1), GREY[:, :, 0, 0], GREY[:, :, 0], 0),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", SHAPES)
def test_shapes(kind, call):
    shape, given, wanted, which = SHAPES[kind]
    for x in (given, given.tolist(), (255 * given).astype(np.uint8), (255 * given).astype(int)):
        trainer = trainer_of(shape)
        fixed = fix(refused(trainer, call, x), x, which)
        assert fixed.shape == wanted.shape
        if x is given:
            assert np.array_equal(fixed, wanted)
            if len(wanted) > 1 or call in ("predict", "predict_proba", "forward", "evaluate"):
                CALLS[call](trainer, fixed, LABELS[: len(wanted)])


@pytest.mark.parametrize("shape", [(5, 7, 3, 1), (5, 4, 3, 3), (4, 7), (0, 7), ()])
def test_shapes_without_a_hint(shape):
    message = refused(trainer_of((4, 3, 1)), "predict", np.zeros(shape, np.float32))
    assert message.endswith("expected (N, 4, 3, 1) with N at least 1")


def test_rows_and_targets_of_check_arrays():
    column, y = FLAT[:, 0], LABELS.astype(float)
    for x, targets, wanted in ((column, y, column[:, None]), (column, y[:1], column[None])):
        with pytest.raises(nb.errors.ShapeError) as caught:
            nb.preprocessing.check_arrays(x, targets)
        assert np.array_equal(fix(str(caught.value), x), wanted)
    message = refused(trainer_of((4, 3, 1)), "evaluate", PIXELS[:1], 2)
    code = re.search(r"; one label or target alone is (\[y\])$", message)[1]
    trainer_of((4, 3, 1)).evaluate(PIXELS[:1], eval(code, {"y": 2}))


# ---------------------------------------------------------------------------------------------------------------- labels

NAMES = np.array(["eel", "cat", "dog"])
MISSING = LABELS == 1
NAN = np.where(MISSING, np.nan, LABELS)


class Missing:
    """As the missing value of a series with whole numbers, which cannot be compared."""

    def __str__(self):
        return "<NA>"

    __repr__ = __str__

    def __eq__(self, other):
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = None


def with_missing(values, missing):
    y = np.array(values, object)
    y[MISSING] = missing
    return y


# what is given, and the labels of the rows that are left
CLASSES = {
    "text": (NAMES[LABELS], np.array([2, 0, 1])[LABELS]),
    "text as objects": (NAMES[LABELS].astype(object), np.array([2, 0, 1])[LABELS]),
    "a list of text": (NAMES[LABELS].tolist(), np.array([2, 0, 1])[LABELS]),
    "text and numbers": (np.array([0, "a", "b"], object)[LABELS], LABELS),
    "text, some missing": (with_missing(NAMES[LABELS], None), np.array([1, None, 0])[LABELS][~MISSING]),
    "text of numbers": (LABELS.astype(str), LABELS),
    "whole floats": (LABELS.astype(float), LABELS),
    "objects": (LABELS.astype(object), LABELS),
    "bool": (LABELS > 0, LABELS > 0),
    "NaN": (NAN, LABELS[~MISSING]),
    "a list with NaN": (NAN.tolist(), LABELS[~MISSING]),
    "objects with None": (with_missing(LABELS, None), LABELS[~MISSING]),
    "objects with NaN": (with_missing(LABELS, np.nan), LABELS[~MISSING]),
    "objects with NA": (with_missing(LABELS, Missing()), LABELS[~MISSING]),
    "a column": (LABELS[:, None], LABELS),
    "a column of text": (NAMES[LABELS][:, None].tolist(), np.array([2, 0, 1])[LABELS]),
    "from 1": (LABELS + 1, LABELS),
    "a list from 1": ((LABELS + 1).tolist(), LABELS),
    "-1 for unknown": (np.where(MISSING, -1, LABELS), LABELS[~MISSING]),
}


@pytest.mark.parametrize("call", ["evaluate", "fit", "validation", "train_batch"])
@pytest.mark.parametrize("kind", CLASSES)
def test_labels(kind, call):
    given, wanted = CLASSES[kind]
    trainer = trainer_of((4, 3, 1))
    x, y = follow_labels(trainer, call, PIXELS, given)
    checked = nb.losses.softmax_cross_entropy.check_targets(y, (3,))
    assert np.array_equal(checked, wanted)
    assert np.array_equal(np.asarray(x), PIXELS if len(wanted) == N else PIXELS[~MISSING])


def follow_labels(trainer, call, x, y, steps=3):
    """x and y as the hints of up to so many messages make them."""
    for _ in range(steps):
        code = re.search(r"\buse (.*?)(?:, and np\.searchsorted.*)?$", refused(trainer, call, x, y))[1]
        names = {"np": np, "x": x, "y": y}
        if "= " in code:
            exec(code, names)
            x, y = names["x"], names["y"]
        else:
            y = eval(code, names)
        try:
            nb.losses.softmax_cross_entropy.check_targets(y, trainer.model.output_shape)
        except nb.NbnetError:
            continue
        CALLS[call](
            trainer, np.zeros((N, 4, 3, 1), np.uint8) if call == "validation" and len(y) == N else x, y
        ) if call != "validation" else None
        return x, y
    return pytest.fail("the hints lead nowhere")


def test_names_of_other_data():
    """np.unique would number the names of other rows from 0 again."""
    message = refused(trainer_of((4, 3, 1)), "evaluate", PIXELS, NAMES[LABELS])
    first, other = re.search(r"use (names, y = .*), and (np\..*) for other data$", message).groups()
    names = {"np": np, "y": NAMES[LABELS]}
    exec(first, names)
    assert eval(other, names | {"y": np.array(["dog", "eel"])}).tolist() == [1, 2]


def test_labels_of_two_signs():
    trainer, y = trainer_of((4, 3, 1), 2), np.where(LABELS == 0, 1, -1)
    _, fixed = follow_labels(trainer, "evaluate", PIXELS, y)
    assert np.array_equal(fixed, LABELS == 0)


@pytest.mark.parametrize(("classes", "y"), [(1, LABELS), (2, LABELS), (3, 2 * LABELS + 1), (3, LABELS + 2)])
def test_more_classes_than_outputs(classes, y):
    message = refused(trainer_of((4, 3, 1), classes), "fit", PIXELS, y)
    last = eval(re.search(rf"; for {y.max() + 1} classes the last layer is (nb\.Dense\(\d\))$", message)[1], {"nb": nb})
    trainer_of((4, 3, 1), last.units).fit((PIXELS, y), 1, progress=False)


def test_numbers_as_labels():
    """They are for a loss of regression; labels given to that loss are for cross-entropy."""
    y = LABELS + 0.5
    message = refused(trainer_of((4, 3, 1)), "fit", PIXELS, y)
    last, loss = re.search(r"; for numbers that are no classes use (nb\.Dense\(1\)) as the last layer, and loss='(\w+)'$", message).groups()
    trainer_of((4, 3, 1), eval(last, {"nb": nb}).units, loss).fit((PIXELS, y), 1, progress=False)
    message = refused(trainer_of((4, 3, 1), 3, loss), "fit", PIXELS)
    other, last = re.search(r"; for labels use loss='(\w+)', for one value per row (nb\.Dense\(1\)) as the last layer$", message).groups()
    trainer_of((4, 3, 1), 3, other).fit((PIXELS, LABELS), 1, progress=False)
    trainer_of((4, 3, 1), eval(last, {"nb": nb}).units, loss).fit((PIXELS, LABELS), 1, progress=False)


@pytest.mark.parametrize(
    "y", [np.ones((N, 2)) / 2, np.ones((N, 3), int), np.zeros((N, 3)), LABELS + 1j], ids=["soft", "several", "none", "complex"]
)
def test_labels_without_a_hint(y):
    assert refused(trainer_of((4, 3, 1)), "fit", PIXELS, y).endswith(("one whole number per row", "0 to 2", "loss='binary_cross_entropy'"))


@pytest.mark.parametrize(
    ("y", "wanted"),
    [(LABELS > 1, LABELS > 1), (LABELS.astype(str).tolist(), LABELS), (LABELS.astype(object), LABELS), (LABELS + 0j, LABELS)],
    ids=["bool", "text", "objects", "complex"],
)
def test_targets(y, wanted):
    trainer = trainer_of((4, 3, 1), 1, "mean_squared_error")
    code = re.search(r"; use (np\.asarray\(y\).*)$", refused(trainer, "fit", PIXELS, y))[1]
    fixed = eval(code, {"np": np, "y": y})
    assert np.array_equal(fixed, wanted)
    trainer.fit((PIXELS, fixed), 1, progress=False)


# ---------------------------------------------------------------------------------------------------------- missing values


def test_values_that_are_not_finite():
    for wrong in (np.nan, np.inf):
        x, trainer = SCALED.copy(), trainer_of((4, 3, 1))
        x[3, 1, 2, 0] = wrong
        message = refused(trainer, "fit", x)
        place = eval(
            re.search(r"data: x\[([\d, ]+)\] is (?:nan|inf): expected finite numbers; remove that row or replace the value$", message)[1]
        )
        trainer.fit((np.delete(x, place[0], axis=0), np.delete(LABELS, place[0])), 1, progress=False)
        x[place] = 0
        trainer.fit((x, LABELS), 2, progress=False)
    with pytest.raises(NonFiniteError, match=r"y\[2\] is nan"):
        trainer_of((4, 3, 1), 1, "mean_squared_error").fit((PIXELS, np.where(LABELS == 2, np.nan, 0)), 1)


@pytest.mark.parametrize("call", CALLS)
def test_masked_arrays(call):
    trainer = trainer_of((4, 3, 1))
    x = np.ma.masked_array(SCALED, SCALED > 0.9)
    code = re.search(r"use (x\.filled\(0\))$", refused(trainer, call, x))[1]
    assert np.array_equal(trainer.model.as_input(eval(code, {"x": x})), np.where(SCALED > 0.9, 0, SCALED))
    CALLS[call](trainer, np.ma.masked_array(SCALED), LABELS)  # nothing is masked


def test_masked_labels_and_arrays_of_functional_calls():
    y = np.ma.masked_array(LABELS, MISSING)
    code = re.search(r"use (y\.filled\(0\))$", refused(trainer_of((4, 3, 1)), "fit", PIXELS, y))[1]
    assert np.array_equal(eval(code, {"y": y}), np.where(MISSING, 0, LABELS))
    with pytest.raises(ArgumentError, match=r"x is an array with 4 masked values"):
        nb.functional.moments(np.ma.masked_array(LABELS + 0.5, MISSING), 0)
