"""What is copied between host and GPU, counted: bytes up, and copies down."""

from functools import cache

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
    from nbnet.kernels.gpu.transfers import Staging

    sizes, upload = [], Staging.upload

    def counted(self, array, flat, on):
        sizes.append(array.nbytes)
        upload(self, array, flat, on)

    monkeypatch.setattr(Staging, "upload", counted)
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


@pytest.fixture
def downloads(monkeypatch):
    """Of each copy to the host: its bytes, and whether it went to pinned memory, which the GPU writes without help."""
    from nbnet.kernels.gpu import transfers

    device, found, pinned = nb.get_backend("cuda").device, [], []
    array_type = type(device.pool().empty((1,), np.float32).flat)
    copy, make = array_type.copy_to_host, transfers.cuda.pinned_array
    monkeypatch.setattr(transfers, "staging", cache(transfers.Staging))
    monkeypatch.setattr(transfers.cuda, "pinned_array", lambda *args: pinned.append(make(*args)) or pinned[-1])

    def counted(self, target, stream=0):
        found.append((target.nbytes, any(np.shares_memory(target, block) for block in pinned)))
        return copy(self, target, stream=stream)

    monkeypatch.setattr(array_type, "copy_to_host", counted)
    return found, pinned


@pytest.mark.parametrize("rows", [6, 600])
def test_losses_come_by_pinned_memory_that_is_kept(downloads, rng, rows):
    found, pinned = downloads
    logits, labels = rng.normal(size=(rows, 4)).astype(np.float32), rng.integers(0, 4, rows)
    expected = nb.losses.softmax_cross_entropy(logits, labels, backend="numpy")
    nb.losses.softmax_cross_entropy(logits, labels, backend="cuda")
    kept = len(pinned)
    found.clear()
    result = nb.losses.softmax_cross_entropy(logits, labels, backend="cuda")
    assert found == [(8 * rows, True), (rows, True)]
    assert len([block for block in pinned[kept:] if block.nbytes >= 9 * rows]) <= 3  # the two uploads have slots of their own
    assert_close(result.total, expected.total, "reduction", "float32")
    assert result.correct == expected.correct


def test_downloads_at_once_do_not_share_memory(downloads):
    device = nb.get_backend("cuda").device
    first, second = (device.Download([device.to_device(np.full(3, value, np.float32))]) for value in (1, 2))
    (a,), (b,) = second.arrived(), first.arrived()
    assert (a.tolist(), b.tolist()) == ([2] * 3, [1] * 3)
    del first, second
    device.Download([device.to_device(np.full(3, 9, np.float32))]).arrived()
    assert (a.tolist(), b.tolist()) == ([2] * 3, [1] * 3)


def test_large_arrays_take_no_pinned_memory(downloads):
    found, _ = downloads
    device = nb.get_backend("cuda").device
    np.asarray(device.pool().empty((device.PINNED_DOWNLOADS // 4 + 1,), np.float32))
    assert found == [(device.PINNED_DOWNLOADS + 4, False)]
