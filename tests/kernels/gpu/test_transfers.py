"""What is copied between host and GPU, counted: bytes up, and copies down."""

import numpy as np
import pytest
from cuda_machine import GPU, SIMULATED
from tolerances import assert_close

import nbnet as nb

pytestmark = pytest.mark.skipif(not (SIMULATED or GPU), reason="there is no GPU: use --cuda=simulator or --cuda=executor")
F = nb.functional


@pytest.fixture
def uploads(monkeypatch):
    """The bytes of each upload."""
    device, sizes = nb.get_backend("cuda").device, []
    upload = device._Staging.upload

    def counted(self, array, flat, on):
        sizes.append(array.nbytes)
        upload(self, array, flat, on)

    monkeypatch.setattr(device._Staging, "upload", counted)
    return sizes


NOISE_SHAPES = {  # of (2, 4, 3, 5): the numbers that go to the GPU
    (2, 1, 1, 5): 10,
    (2, 1, 1, 1): 2,
    (1, 4, 3, 5): 60,
    (2, 4, 3, 1): 24,
    (1, 1, 1, 5): 5,
    (1, 1, 1, 1): 1,
    (2, 1, 3, 1): 24,  # not one run of shared axes: the decisions are repeated along the shorter ones
    (2, 4, 3, 5): 120,
}


@pytest.mark.parametrize("noise_shape", NOISE_SHAPES, ids=str)
@pytest.mark.parametrize("variant", ["inverted", "alpha"])
def test_shared_decisions_of_dropout_are_uploaded_once_each(uploads, rng, variant, noise_shape):
    x = rng.normal(size=(2, 4, 3, 5)).astype(np.float32)
    options = {"seed": 3, "step": 1, "variant": variant, "noise_shape": noise_shape}
    expected, saved = F.dropout_forward(x, 0.4, backend="numpy", **options)
    placed = nb.get_backend("cuda").place(x)
    uploads.clear()
    y, saved_there = F.dropout_forward(placed, 0.4, backend="cuda", **options)
    assert uploads == [4 * NOISE_SHAPES[noise_shape]] * (2 if variant == "alpha" else 1)
    assert_close(np.asarray(y), expected, "elementwise", "float32")
    dx = F.dropout_backward(placed, saved_there)
    assert_close(np.asarray(dx), F.dropout_backward(x, saved), "exact")
