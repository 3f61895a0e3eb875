"""A network of 91,201 parameters on 20 points, with and without dropout, and with its weights averaged."""

import numpy as np

import nbnet as nb

SEEDS = 3
x, x_test = (np.linspace(-1, 1, count, dtype=np.float32)[:, None] for count in (20, 200))


def run(rate, seed):
    """Losses on the 20 points, on other points, and on these with averaged weights."""
    rng = np.random.default_rng(seed)
    y, y_test = (points + rng.normal(0, 0.3, points.shape).astype(np.float32) for points in (x, x_test))
    layers = [nb.Dense(300), nb.ReLU(), nb.Dropout(rate), nb.Dense(300), nb.ReLU(), nb.Dropout(rate), nb.Dense(1)]
    model = nb.Sequential(layers)
    model.build((1,), backend="serial", seed=seed)
    trainer = nb.Trainer(model, loss="mean_squared_error", optimizer=nb.Adam(0.01))
    average = nb.ExponentialMovingAverage(0.99, zero_debias=True)
    for _ in range(300):
        trainer.train_batch(x, y)
        average.apply({name: param.value for name, param in model.params.items()})
    train, test = trainer.evaluate(x, y)["loss"], trainer.evaluate(x_test, y_test)["loss"]
    with average.swapped(model):  # afterwards the model's own weights are back
        return train, test, trainer.evaluate(x_test, y_test)["loss"]


print(f"medians of {SEEDS} seeds; the noise alone has a mean square of 0.09")
for rate in (0, 0.25, 0.5, 0.75):
    train, test, averaged = np.median([run(rate, seed) for seed in range(SEEDS)], axis=0)
    print(f"p = {rate:4}: loss on the 20 points {train:.3f}, on others {test:.3f}, on others with average weights {averaged:.3f}")

# The two forms of dropout agree with their own evaluation, on average over masks.
ones = np.ones(1_000_000)
for variant in ("inverted", "vanilla"):
    dropped, _ = nb.functional.dropout_forward(ones, 0.5, seed=0, variant=variant)
    evaluated, _ = nb.functional.dropout_forward(ones, 0.5, seed=0, variant=variant, train=False)
    print(f"{variant}: mean {dropped.mean():.3f} in training, {evaluated.mean():.3f} in evaluation")
