"""One training step of each ready-made network on compiled kernels gives what the NumPy definition gives."""

import cuda_machine
import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet import models

pytestmark = pytest.mark.skipif(not cuda_machine.GPU, reason="there is no GPU: use --cuda=executor")
ROWS = 3
LABELS = np.arange(ROWS)
CASES = {  # network, shape of its inputs, loss
    "digits": (models.digits, (8, 8, 1), "softmax_cross_entropy"),
    "lenet": (models.lenet, (8, 8, 1), "softmax_cross_entropy"),
    "five-conv": (models.five_conv, (16, 16, 3), "softmax_cross_entropy"),
    "resnet9": (lambda: models.resnet9(width=4), (16, 16, 3), "softmax_cross_entropy"),
    "se-resnet": (lambda: models.se_resnet(width=4), (16, 16, 3), "softmax_cross_entropy"),
    "mobile": (lambda: models.mobile(width=4), (8, 8, 3), "softmax_cross_entropy"),
    "keyword": (lambda: models.keyword(width=4), (16, 5), "softmax_cross_entropy"),
    "airbench": (lambda: models.airbench(widths=(4, 8, 8)), (32, 32, 3), "softmax_cross_entropy"),
    "siamese": (lambda: models.siamese(3), ((8, 8, 1), (8, 8, 1)), "softmax_cross_entropy"),
    "autoencoder": (models.autoencoder, (8, 8, 1), "mean_squared_error"),
    "unet-small": (models.unet_small, (8, 8, 1), "mean_squared_error"),
}


def test_no_network_is_left_out():
    made = {name for name, value in vars(models).items() if callable(value) and getattr(value, "__module__", "") == models.__name__}
    assert {name.replace("-", "_") for name in CASES} == {name for name in made if name[0] != "_"} - {"get", "choose"}


@pytest.mark.parametrize("name", CASES)
def test_a_step(name, rng):
    network, shape, loss = CASES[name]
    pair = isinstance(shape[0], tuple)
    x = tuple(rng.normal(size=(ROWS, *each)).astype("float32") for each in (shape if pair else (shape,)))
    x = x if pair else x[0]
    y = LABELS if loss == "softmax_cross_entropy" else rng.uniform(size=(ROWS, *shape)).astype("float32")
    trainers, losses = [], []
    for backend in ("numpy", "cuda"):
        model = network()
        model.build(shape, backend=backend, dtype="float32", seed=7)
        trainers.append(nb.Trainer(model, loss, optimizer=nb.SGD(0.01)))
        losses.append(trainers[-1].train_batch(x, y)["loss"])
    assert_close(losses[1], losses[0], "training", "float32")
    expected, actual = (trainer.model.state() for trainer in trainers)
    for key, value in expected.items():
        assert_close(np.asarray(actual[key]), value, "training", "float32", f"{key}: ")
