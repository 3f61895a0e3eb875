"""A PyTorch twin with the same weights on the same batches. Runs where torch is installed; nothing else needs it."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb

torch = pytest.importorskip("torch", reason="torch is a yardstick, not a dependency")


def twins():
    """A CNN, twice, in float64: ours, and PyTorch's with our weights."""
    ours = nb.Sequential(
        [
            nb.Conv2D(16, 3, use_bias=False),
            nb.BatchNorm(),
            nb.ReLU(),
            nb.MaxPool2D(2),
            nb.Conv2D(32, 3),  # with a bias, and so without a batch norm: its gradient would be 0, and Adam would amplify the rounding
            nb.ReLU(),
            nb.MaxPool2D(2),
            nb.Flatten(),
            nb.Dense(10),
        ]
    )
    ours.build((8, 8, 1), backend="parallel", dtype="float64", seed=1)
    nn = torch.nn
    theirs = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    ).double()
    with torch.no_grad():
        for mine, other in zip(ours.layers, theirs):
            if isinstance(mine, nb.Conv2D):
                other.weight.copy_(torch.tensor(mine.params["weight"].value.transpose(3, 2, 0, 1)))
            if isinstance(mine, nb.Dense):  # PyTorch flattens (C, H, W)
                weight = mine.params["weight"].value.reshape(2, 2, 32, 10).transpose(3, 2, 0, 1).reshape(10, 128)
                other.weight.copy_(torch.tensor(weight))
            if "bias" in mine.params:
                other.bias.copy_(torch.tensor(mine.params["bias"].value))
    return ours, theirs


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adam", "adamw"])
def test_ten_steps_beside_pytorch(rng, name):
    ours, theirs = twins()
    options = {
        "sgd": (
            nb.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
            torch.optim.SGD,
            {"lr": 0.1, "momentum": 0.9, "nesterov": True},
        ),
        "rmsprop": (nb.RMSProp(1e-3, momentum=0.5, weight_decay=1e-3), torch.optim.RMSprop, {"lr": 1e-3, "momentum": 0.5}),
        "adam": (nb.Adam(1e-2, weight_decay=1e-3), torch.optim.Adam, {"lr": 1e-2}),
        "adamw": (nb.AdamW(1e-2, weight_decay=1e-3), torch.optim.AdamW, {"lr": 1e-2}),
    }
    mine, kind, arguments = options[name]
    trainer = nb.Trainer(ours, optimizer=mine)
    other = kind(theirs.parameters(), weight_decay=1e-3, **arguments)
    for _ in range(10):
        x, y = rng.random((32, 8, 8, 1)), rng.integers(0, 10, 32)
        loss = torch.nn.functional.cross_entropy(theirs(torch.tensor(x.transpose(0, 3, 1, 2))), torch.tensor(y))
        other.zero_grad()
        loss.backward()
        other.step()
        assert_close(np.array(trainer.train_batch(x, y)["loss"]), loss.item(), "training")
    theirs.eval()
    with torch.no_grad():
        expected = theirs(torch.tensor(x.transpose(0, 3, 1, 2))).numpy()
    assert_close(ours.predict(x), expected, "training")
