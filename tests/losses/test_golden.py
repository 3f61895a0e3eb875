"""Values and gradients of PyTorch 2.13 and Keras 3.15 (on PyTorch): NUMBERS holds what MADE_BY gives, the sum of the rows' losses and
the sum of its gradient times C. `PYTHONPATH=tests python tests/losses/test_golden.py` with both installed prints them again."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb

L = nb.losses
Z = np.array([[0.5, -1.2, 2.0], [1.5, 0.3, -0.7], [-0.2, 0.8, 0.1], [3.0, -2.0, 1.0]])  # logits, or numbers
P = 1 / (1 + np.exp(-Z))
LABELS = np.array([2, 0, 1, 1])
SOFT = np.array([[0.2, 0.3, 0.5], [1, 0, 0], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]])
BITS = np.array([[1.0, 0, 1], [0, 0, 1], [1, 1, 0], [0, 1, 1]])
PARTS = np.array([[0.9, 0.2, 1], [0, 0.5, 1], [1, 0.75, 0.25], [0.1, 0.6, 0.3]])
Y = np.array([[0.1, -3.0, 2.0], [1.0, 1.0, 1.0], [-0.5, 0.8, 2.5], [1.0, -1.0, 1.25]])
C = np.arange(12).reshape(4, 3) / 8 - 0.5
W = np.array([0.5, 2.0, 0.0, 1.25])
CASES = {  # the loss, prediction, target
    "cross-entropy": (L.SoftmaxCrossEntropy(), Z, LABELS),
    "smoothed": (L.SoftmaxCrossEntropy(0.2), Z, LABELS),
    "class weights": (L.SoftmaxCrossEntropy(class_weight=[0.5, 2, 1.5]), Z, LABELS),
    "both": (L.SoftmaxCrossEntropy(0.2, [0.5, 2, 1.5]), Z, LABELS),
    "ignored": (L.SoftmaxCrossEntropy(0.2, [0.5, 2, 1.5], 1), Z, LABELS),
    "probabilities": (L.SoftmaxCrossEntropy(0.1, [0.5, 2, 1.5]), Z, SOFT),
    "divergence": (L.KLDivergence(), Z, SOFT),
    "binary": (L.BinaryCrossEntropy(), Z, PARTS),
    "binary, pos_weight": (L.BinaryCrossEntropy(pos_weight=[0.5, 2, 1.5]), Z, PARTS),
    "binary, probabilities": (L.BinaryCrossEntropy(from_logits=False), P, PARTS),
    "squared": (L.MeanSquaredError(), Z, Y),
    "absolute": (L.MeanAbsoluteError(), Z, Y),
    "huber": (L.Huber(0.75), Z, Y),
    "hinge": (L.Hinge(), Z, BITS),
    "focal": (L.Focal(1.5), Z, BITS),
    "focal, alpha": (L.Focal(2.0, 0.25), Z, BITS),
    "triplet": (L.Triplet(0.5), (Z, Y, BITS), np.zeros(4)),
}
MADE_BY = {
    "cross-entropy": "F.cross_entropy(z, labels, reduction='sum')",
    "smoothed": "F.cross_entropy(z, labels, label_smoothing=0.2, reduction='sum')",
    "class weights": "F.cross_entropy(z, labels, w, reduction='sum')",
    "both": "F.cross_entropy(z, labels, w, label_smoothing=0.2, reduction='sum')",
    "ignored": "F.cross_entropy(z, labels, w, ignore_index=1, label_smoothing=0.2, reduction='sum')",
    "probabilities": "F.cross_entropy(z, soft, w, label_smoothing=0.1, reduction='sum')",
    "divergence": "F.kl_div(F.log_softmax(z, 1), soft, reduction='sum')",
    "binary": "F.binary_cross_entropy_with_logits(z, parts, reduction='sum') / 3",
    "binary, pos_weight": "F.binary_cross_entropy_with_logits(z, parts, pos_weight=w, reduction='sum') / 3",
    "binary, probabilities": "F.binary_cross_entropy(p, parts, reduction='sum') / 3",
    "squared": "F.mse_loss(z, y, reduction='sum') / 3",
    "absolute": "F.l1_loss(z, y, reduction='sum') / 3",
    "huber": "F.huber_loss(z, y, reduction='sum', delta=0.75) / 3",
    "hinge": "keras.losses.Hinge(reduction='sum')(bits, z)",
    "focal": "keras.losses.BinaryFocalCrossentropy(gamma=1.5, from_logits=True, reduction='sum')(bits, z)",
    "focal, alpha": "keras.losses.BinaryFocalCrossentropy(True, 0.25, 2.0, from_logits=True, reduction='sum')(bits, z)",
    "triplet": "F.triplet_margin_loss(z, y, bits, 0.5, eps=1e-30, reduction='sum')",
}
NUMBERS = {
    "cross-entropy": (6.335020659404361, -0.08789367049547256),
    "smoothed": (6.455020659404362, -0.08789367049547264),
    "class weights": (12.035435335254551, -0.22112687981625617),
    "both": (11.811020444044804, -0.23367314931846414),
    "ignored": (1.4301578522375136, -0.056456829462747),
    "probabilities": (8.461260636298269, -0.19964113901079983),
    "divergence": (2.1877011496430896, -0.05664367049547264),
    "binary": (3.946885093145242, 0.16600212652919202),
    "binary, pos_weight": (4.697578040558276, -0.011497233015583794),
    "binary, probabilities": (3.946885093145243, 3.3052395635061123),
    "squared": (5.980833333333333, -1.3291666666666666),
    "absolute": (3.6833333333333336, -0.7916666666666665),
    "huber": (1.9316666666666666, -0.41666666666666663),
    "hinge": (5.166666612029076, -0.14583333767950535),
    "focal": (2.5618739165365696, -0.08606277237846419),
    "focal, alpha": (1.310486827045679, 0.10301347942290712),
    "triplet": (2.52014527080901, -0.9172148789202715),
}
# With sample weights Keras divides by the rows too.
WEIGHTED = {
    "cross-entropy": "keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, z, w4)",
    "smoothed": "keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)(one_hot, z, w4)",
    "binary": "keras.losses.BinaryCrossentropy(from_logits=True)(parts, z, w4)",
    "squared": "keras.losses.MeanSquaredError()(y, z, w4)",
    "absolute": "keras.losses.MeanAbsoluteError()(y, z, w4)",
    "huber": "keras.losses.Huber(0.75)(y, z, w4)",
    "hinge": "keras.losses.Hinge()(bits, z, w4)",
}
MEANS = {
    "cross-entropy": 1.8057912588119507,
    "smoothed": 1.791624665260315,
    "binary": 1.1630020141601562,
    "squared": 1.274010419845581,
    "absolute": 0.9135416746139526,
    "huber": 0.4541926980018616,
    "hinge": 1.6666666269302368,
}


@pytest.mark.parametrize("backend", ["numpy", "serial", "parallel"])
@pytest.mark.parametrize("name", CASES)
def test_values_of_other_frameworks(name, backend):
    loss, prediction, target = CASES[name]
    result = loss(prediction, target, rows=1, backend=backend)
    total, product = NUMBERS[name]
    dtype = "float32" if "keras" in MADE_BY[name] else "float64"  # its losses compute in float32 whatever they get
    assert_close(result.total, total, "golden", dtype)
    gradient = result.gradient[0] if type(result.gradient) is tuple else result.gradient
    assert_close((gradient * C).sum(), product, "golden", dtype)


@pytest.mark.parametrize("backend", ["numpy", "serial", "parallel"])
@pytest.mark.parametrize("name", WEIGHTED)
def test_weighted_means_of_keras(name, backend):
    loss, prediction, target = CASES[name]
    result = loss(prediction, target, sample_weight=W, backend=backend)
    assert_close(result.total / 4, MEANS[name], "golden", "float32")


def record():
    import os

    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    import torch
    import torch.nn.functional as F

    keras.config.set_floatx("float64")
    arrays = {"p": P, "labels": LABELS, "soft": SOFT, "bits": BITS, "parts": PARTS, "y": Y, "w4": W, "one_hot": np.eye(3)[LABELS]}
    names = {name: torch.tensor(array) for name, array in arrays.items()} | {"F": F, "keras": keras}
    names["w"] = torch.tensor([0.5, 2, 1.5], dtype=torch.float64)
    print("NUMBERS = {")
    for name, code in MADE_BY.items():
        names["z"], names["p"] = torch.tensor(Z, requires_grad=True), torch.tensor(P, requires_grad=True)
        loss = eval(code, names)
        loss.backward()
        gradient = (names["z"] if names["z"].grad is not None else names["p"]).grad
        print(f"    {name!r}: ({loss.item()!r}, {(gradient.numpy() * C).sum().item()!r}),")
    print("}\nMEANS = {")
    for name, code in WEIGHTED.items():
        print(f"    {name!r}: {eval(code, names).item()!r},")
    print("}")


if __name__ == "__main__":
    record()
