"""What `build` accepts, and that it changes nothing after an error."""

import numpy as np
import pytest

import nbnet as nb
from nbnet.errors import ArgumentError, BuildError, DTypeError, ShapeError


def test_a_layer_that_does_not_fit_names_both():
    model = nb.Sequential([nb.Conv2D(4, 3), nb.MaxPool2D(2), nb.Dense(10)])
    with pytest.raises(ShapeError, match=r"layer 2\.dense does not fit layer 1\.maxpool2d, which gives \(4, 4, 4\).*put Flatten\(\)"):
        model.build((8, 8, 1))
    with pytest.raises(ShapeError, match=r"layer 0\.conv2d does not fit the input, which gives \(9,\).*expected images"):
        nb.Sequential([nb.Conv2D(4, 3)]).build((9,))
    with pytest.raises(ShapeError, match="does not fit an image of height 2"):
        nb.Sequential([nb.Conv2D(4, 3, padding="valid")]).build((2, 9, 1))
    with pytest.raises(ShapeError, match=r"the body gives \(8, 8, 4\) and the shortcut \(8, 8, 1\)"):
        nb.Sequential([nb.Residual([nb.Conv2D(4, 3)])]).build((8, 8, 1))


def test_bad_build_options():
    layer = nb.Dense(2)
    with pytest.raises(nb.errors.BackendError, match="did you mean 'parallel'"):
        layer.build((3,), backend="paralel")
    with pytest.raises(DTypeError, match="float32"):
        layer.build((3,), dtype="float16")
    with pytest.raises(ShapeError, match="positive sizes"):
        layer.build((3, -1))
    with pytest.raises(ArgumentError, match="seed=-1"):
        layer.build((3,), seed=-1)
    with pytest.raises(ArgumentError, match="did you mean 'he_normal'"):
        nb.Dense(2, weight_initializer="he_norm").build((3,))


class Own(nb.Layer):
    """A layer whose create is given."""

    def __init__(self, create):
        super().__init__()
        self.create = create


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda layer: (layer.add_param("w", (3,)), layer.add_buffer("w", 0), (3,))[-1], "has a parameter or buffer 'w' already"),
        (lambda layer: 3, r"Own.create returned 3, expected the shape of one output, such as \(3,\)"),
        (lambda layer: None, "Own.create returned None, expected the shape"),
        (lambda layer: layer.add_param("w", (3,), lambda rng, shape: np.zeros(4)), r"the initializer of w returned shape \(4,\), expected"),
    ],
)
def test_what_a_create_may_not_do(create, message):
    layer = Own(lambda input_shape: create(layer))
    with pytest.raises(nb.NbnetError, match=message):
        layer.build((3,))
    assert layer.input_shape is None


def test_a_shape_may_be_a_list():
    layer = Own(lambda input_shape: layer.add_param("w", [2, 3]) or [3])
    layer.build((3,), backend="serial")
    assert (layer.params["w"].value.shape, layer.output_shape) == ((2, 3), (3,))


def test_a_sequential_without_layers():
    model = nb.Sequential([])
    with pytest.raises(BuildError, match=r"this Sequential has no layers: expected at least one, such as nb.Dense\(10\)"):
        model.build((3,), backend="numpy")
    assert model.input_shape is None


@pytest.mark.parametrize("dtype", ["", "float31", None, "f4,", "(", ",", 7, "float16", ">f4"])
def test_a_dtype_that_is_none(dtype):
    model = nb.Sequential([nb.Dense(1)])
    with pytest.raises(DTypeError, match="nbnet computes in 'float32' or 'float64'"):
        model.build((3,), backend="numpy", dtype=dtype)
    assert model.input_shape is None


def test_parameters_that_do_not_fit_into_memory():
    def full(rng, shape):
        raise MemoryError

    model = nb.Sequential([nb.Dense(1, weight_initializer=full)])
    with pytest.raises(BuildError, match=r"the arrays for input_shape=\(3,\) do not fit into memory: expected smaller layers"):
        model.build((3,), backend="numpy")
    assert model.input_shape is None


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nb.Dense(10**30), (3,)),
        (nb.Dense(10**6), (10**5, 10**8)),
        (nb.Conv2D(10**12, 3), (30, 30, 10**9)),
        (nb.BatchNorm(center=False, scale=False), (3, 3, 10**20)),
        (nb.Flatten(), (10**7, 10**7, 10**7)),
    ],
)
def test_sizes_beyond_the_address_space(layer, shape):
    model = nb.Sequential([nb.Flatten(), layer] if isinstance(layer, nb.Dense) else [layer])
    with pytest.raises(BuildError, match="do not fit into memory: expected smaller layers"):
        model.build(shape, backend="numpy")
    assert model.input_shape is None
