"""One hidden tanh layer on three targets, with and without batch norm, from two starts; draws convergence.png.

python convergence.py --epochs 2000 shows more: the benefit of batch norm depends on the start.
"""

import argparse

import numpy as np
from matplotlib.figure import Figure

import nbnet as nb

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=100)
epochs = parser.parse_args().epochs

x = np.random.default_rng(0).uniform(-1, 1, (1300, 3))
y = np.stack([x @ [1, 2, 3], x**2 @ [1, 2, 3], x @ [-3, -4, -5]], axis=1)
train, test = slice(1000), slice(1000, None)


def network(batch_norm, deviation):
    """3-300-3, all weights and biases from N(0, deviation^2)."""
    normal = nb.initializers.normal(deviation)
    hidden, out = (nb.Dense(units, weight_initializer=normal, bias_initializer=normal) for units in (300, 3))
    layers = [hidden, nb.BatchNorm.preset("sigma"), nb.Tanh(), out]
    return nb.Sequential(layers if batch_norm else [hidden, nb.Tanh(), out])


figure = Figure(figsize=(10, 4), layout="constrained")
for axes, deviation in zip(figure.subplots(1, 2), (1.0, 0.01)):
    for batch_norm, name in ((False, "without batch norm"), (True, "with batch norm")):
        model = network(batch_norm, deviation)
        model.build((3,), dtype="float64", seed=0)
        trainer = nb.Trainer(model, loss="sum_squared_error", optimizer=nb.Adam(1e-3))
        losses = [trainer.train_batch(x[train], y[train])["loss"] for _ in range(epochs)]
        final = trainer.evaluate(x[test], y[test])["loss"]
        print(f"weights from N(0, {deviation:g}^2), {name}: test loss {final:.3g} after {epochs} epochs")
        axes.plot(np.arange(1, epochs + 1), losses, label=name)
    axes.set(title=f"Weights from N(0, {deviation:g}²)", xscale="log", yscale="log")
    axes.set(xlabel="epoch", ylabel="training loss: sum of squares per row")
    axes.legend(frameon=False)
figure.savefig("convergence.png", dpi=120)
print("the picture: convergence.png")
