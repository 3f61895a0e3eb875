"""The moving statistics of batch norm: how they are averaged, what happens to a file without them, how they are frozen."""

import numpy as np

import nbnet as nb

# Ten noisy numbers around 5, averaged from 0 with decay 0.99.
rng = np.random.default_rng(0)
numbers = 5 + rng.normal(0, 0.35, 10)
plain, counted, debiased = (nb.ExponentialMovingAverage(0.99, zero_debias=debias) for debias in (False, False, True))
for t, number in enumerate(numbers):
    plain.apply({"x": number}, start={"x": 0.0})
    counted.apply({"x": number}, num_updates=t, start={"x": 0.0})  # decay min(0.99, (1 + t) / (10 + t))
    debiased.apply({"x": number})
for name, average in (("plain", plain), ("step-count decay", counted), ("zero debias", debiased)):
    print(f"after 10 updates, {name}: {average.average('x'):.2f}")

# A checkpoint must contain the moving statistics, although no optimiser changes them.
(x, y), (x_test, y_test), _ = nb.datasets.load("digits")


def network(seed):
    layers = []
    for filters in (8, 16):
        layers += [nb.Conv2D(filters, 3, use_bias=False), nb.BatchNorm(decay=0.9), nb.ReLU(), nb.MaxPool2D(2)]
    model = nb.Sequential([*layers, nb.Flatten(), nb.Dense(10)])
    model.build((8, 8, 1), backend="serial", seed=seed)
    return model


def accuracy(model):
    return (model.predict(x_test).argmax(axis=1) == y_test).mean()


trained, complete, forgotten = network(0), network(1), network(2)
nb.Trainer(trained, optimizer=nb.Adam(5e-3)).fit((x, y), epochs=5)
trained.save_weights("weights.safetensors")  # parameters and buffers
complete.load_weights("weights.safetensors")
for name, param in forgotten.params.items():  # parameters alone
    param.value[:] = trained.params[name].value
print(f"trained {accuracy(trained):.1%}, restored {accuracy(complete):.1%}, without moving statistics {accuracy(forgotten):.1%}")
nb.batch_norm_report(forgotten, x)
nb.recalibrate(forgotten, x)
print(f"recalibrated {accuracy(forgotten):.1%}")

# Three switches: batch or moving statistics, whether the moving ones are updated, whether gamma and beta train.
norm = trained.layers[1]
for name, switches in (("training", (True, True, True)), ("gamma, beta fixed", (True, True, False)), ("frozen", (False, False, False))):
    norm.use_batch_statistics, norm.update_statistics, norm.trainable = switches
    before = norm.buffers["moving_mean"].copy(), norm.params["gamma"].value.copy()
    nb.Trainer(trained, optimizer=nb.Adam(1e-3)).train_batch(x[:32], y[:32])
    moved = [bool((a != b).any()) for a, b in zip(before, (norm.buffers["moving_mean"], norm.params["gamma"].value))]
    print(f"{name}: moving mean changed {moved[0]}, gamma changed {moved[1]}")

# Batches of 2: renormalisation corrects the batch's statistics towards the moving ones.
for name, renorm in (("batch norm", None), ("batch renormalisation", nb.Renorm.warm_up(50, 200, 200))):
    results = []
    for seed in range(3):
        layers = [nb.Flatten(), nb.Dense(64), nb.BatchNorm(0.99, renorm=renorm), nb.ReLU(), nb.Dense(10)]
        model = nb.Sequential(layers)
        model.build((8, 8, 1), backend="serial", seed=seed)
        trainer = nb.Trainer(model, optimizer=nb.Adam(1e-3), seed=seed)
        trainer.fit((x, y), epochs=2, batch_size=2)
        results.append(trainer.evaluate(x_test, y_test)["accuracy"])
    print(f"batches of 2, {name}: median test accuracy {np.median(results):.1%}")
