"""Eight narrow tanh layers on y = x^2, with and without batch norm; draws deep_tanh.png."""

import numpy as np
from matplotlib.figure import Figure

import nbnet as nb

rng = np.random.default_rng(0)
x = rng.permutation(np.linspace(-7, 10, 2000, dtype=np.float32))[:, None]
x_test = np.linspace(-7, 10, 200, dtype=np.float32)[:, None]
y, y_test = (points**2 + rng.normal(0, 0.2, points.shape).astype(np.float32) for points in (x, x_test))
small = nb.initializers.normal(0.1)


def network(batch_norm):
    """8 hidden layers of 10 units; batch norm on the input and before each tanh."""
    layers = [nb.BatchNorm(decay=0.4)] if batch_norm else []
    for _ in range(8):
        layers.append(nb.Dense(10, weight_initializer=small))
        if batch_norm:
            layers.append(nb.BatchNorm(decay=0.4))
        layers.append(nb.Tanh())
    return nb.Sequential([*layers, nb.Dense(1, weight_initializer=small)])


def activations(model, batch):
    """The output of each tanh for the batch, on moving statistics."""
    outputs = []
    for layer in model.layers:
        batch, _ = layer.forward(batch)
        if isinstance(layer, nb.Tanh):
            outputs.append(batch)
    return outputs


figure = Figure(figsize=(9, 4), layout="constrained")
left, right = figure.subplots(1, 2)
left.plot(x_test, y_test, ".", color="0.7", label="test points")
for batch_norm, name in ((False, "without batch norm"), (True, "with batch norm")):
    model = network(batch_norm)
    model.build((1,), backend="serial", seed=0)
    trainer = nb.Trainer(model, loss="mean_squared_error", optimizer=nb.Adam(0.03))
    losses = []
    for _ in range(250):
        rows = rng.choice(len(x), 128, replace=False)
        losses.append(trainer.train_batch(x[rows], y[rows])["loss"])
    spreads = [np.ptp(output, axis=0).mean() for output in activations(model, x_test)]
    print(f"{name}: test loss {trainer.evaluate(x_test, y_test)['loss']:.0f}")
    print("  outputs of layers 1 to 8 range over", " ".join(f"{spread:.2f}" for spread in spreads))
    left.plot(x_test, model.predict(x_test), linewidth=2, label=name)
    right.plot(losses, label=name)

left.set(title="The fits after 250 steps", xlabel="x", ylabel="y")
right.set(title="Learning", xlabel="step", ylabel="mean squared error of the batch")
for axes in (left, right):
    axes.legend(frameon=False)
figure.savefig("deep_tanh.png", dpi=120)
print("the picture: deep_tanh.png")
