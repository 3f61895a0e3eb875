"""Values and gradients of PyTorch 2.13 and Keras 3.15 (on PyTorch): NUMBERS holds what MADE_BY gives, the sum of the rows' losses and
the sum of its gradient times C. `PYTHONPATH=tests python tests/losses/test_golden.py` with both installed prints them again."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb

L = nb.losses
Z = np.array([[0.5, -1.2, 2.0], [1.5, 0.3, -0.7], [-0.2, 0.8, 0.1], [3.0, -2.0, 1.1]])  # logits, or numbers
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
    "cross-entropy": (6.347406356462339, -0.08519008297179256),
    "smoothed": (6.460739689795673, -0.08519008297179255),
    "class weights": (12.060206729370506, -0.21571970476889618),
    "both": (11.824140411886361, -0.22862645260759493),
    "ignored": (1.4301578522375136, -0.056456829462747),
    "probabilities": (8.405739362681913, -0.19593497111375513),
    "divergence": (2.1500868467010674, -0.0539400829717927),
    "binary": (3.9615763056776445, 0.1716025718940166),
    "binary, pos_weight": (4.710972934970539, -0.005056720846035548),
    "binary, probabilities": (3.961576305677646, 3.3666708180303737),
    "squared": (5.9675, -1.2708333333333333),
    "absolute": (3.6500000000000004, -0.7916666666666665),
    "huber": (1.925, -0.38749999999999996),
    "hinge": (5.166666612029076, 0.0),
    "focal": (2.559263948351145, -0.08201014523478972),
    "focal, alpha": (1.3100920654833317, 0.1037509486618636),
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
    "cross-entropy": 1.809661865234375,
    "smoothed": 1.7934118509292603,
    "binary": 1.167593002319336,
    "squared": 1.2698438167572021,
    "absolute": 0.9031250476837158,
    "huber": 0.45210936665534973,
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
