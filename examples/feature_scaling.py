"""Two features of mean 0 and 200: the largest learning rate that converges, by bisection, for three kinds of input of one linear unit."""

import numpy as np

import nbnet as nb

rng = np.random.default_rng(0)
x = rng.normal((0, 200), 10, (1000, 2))
y = x.sum(axis=1, keepdims=True) + rng.normal(0, 1, (1000, 1))
scaled = nb.StandardScaler().fit(x).transform(x)


def converges(layers, inputs, lr, steps=60):
    """Whether the loss has fallen after some batches of 100 rows."""
    model = nb.Sequential([*layers, nb.Dense(1, weight_initializer="zeros")])
    model.build((2,), backend="serial", dtype="float64", seed=0)
    trainer = nb.Trainer(model, loss="mean_squared_error", optimizer=nb.SGD(lr))
    losses = []
    for step in range(steps):
        rows = slice(step * 100 % 1000, step * 100 % 1000 + 100)
        losses.append(trainer.train_batch(inputs[rows], y[rows])["loss"])
        if losses[-1] > 100 * losses[0]:
            return False
    return np.mean(losses[-10:]) < losses[0]


def largest_rate(make_layers, inputs):
    low, high = 1e-7, 1e3
    for _ in range(12):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if converges(make_layers(), inputs, middle) else (low, middle)
    return low


def normalisation():
    return [nb.BatchNorm(center=False, scale=False)]


raw = largest_rate(list, x)
print(f"    features as they are: largest learning rate {raw:.2g}")
for name, make_layers, inputs in (("StandardScaler", list, scaled), ("batch norm of the input", normalisation, x)):
    rate = largest_rate(make_layers, inputs)
    print(f"{name:>24}: largest learning rate {rate:.2g}, {rate / raw:,.0f} times that")

# Why: gradient descent on a quadratic converges below 2 / (its largest curvature), and 200^2 is a large curvature.
for name, inputs in (("as they are", x), ("scaled", scaled)):
    design = np.column_stack([inputs, np.ones(1000)])
    curvatures = np.linalg.eigvalsh(2 * design.T @ design / 1000)
    print(f"{name:>24}: 2 / largest curvature {2 / curvatures[-1]:.2g}, largest / smallest curvature {curvatures[-1] / curvatures[0]:,.0f}")
