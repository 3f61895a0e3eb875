"""The recipe of a speed record on CIFAR-10 ("94% on CIFAR-10 in 3.29 seconds", Jordan 2024): what each of its parts does.

python cifar10_airbench.py                       a small network on the digits, seconds
python cifar10_airbench.py cifar10               CIFAR-10: downloaded once, minutes
python cifar10_airbench.py some/folder muon      your folder of images, with the optimiser Muon

nb.recipes.airbench(model, x) makes such a trainer of nb.models.airbench().
"""

import sys

import numpy as np

import nbnet as nb

data, optimizer, *_ = [*sys.argv[1:], *("digits", "sgd")[len(sys.argv) - 1 :]]
if data == "digits":  # 8x8 grey pixels: enlarged, in three channels
    (x, y), (x_test, y_test), names = nb.datasets.load("digits")
    x, x_test = (np.repeat(np.kron(part, np.ones((1, 4, 4, 1), np.uint8)), 3, axis=3) for part in (x, x_test))
    widths, epochs, batch_size, flips = (16, 32, 32), 12, 32, False  # a mirrored digit is another one
else:
    (x, y), (x_test, y_test), names = nb.datasets.open_data(data)
    widths, epochs, batch_size, flips = (64, 256, 256), 10, 256, True

layers = [
    nb.BatchNorm(center=False, scale=False).named("standardize"),
    nb.Conv2D(24, 2, padding="valid", activation="gelu").named("whiten"),
]
for filters in widths:
    for pooled in (True, False):
        layers.append(nb.Conv2D(filters, 3, use_bias=False, weight_initializer=nb.initializers.passing()))
        layers += [nb.MaxPool2D(2)] if pooled else []
        layers.append(nb.BatchNorm(decay=0.6, scale=False, activation="gelu"))
layers += [
    nb.MaxPool2D(3),
    nb.Flatten(),
    nb.Dense(len(names), use_bias=False, weight_initializer=nb.initializers.normal(0.004)).named("head"),
]
model = nb.Sequential(layers)
model.build(x.shape[1:], seed=0)

# Statistics of the pixels, then uncorrelated 2x2 patches: both are computed once, and stay.
some = x[:: -(-len(x) // 5000)] / 255  # of all classes: a folder's images are in their order
mean, variance = some.mean(axis=(0, 1, 2)), some.var(axis=(0, 1, 2))
model["standardize"].buffers["moving_mean"][:] = mean
model["standardize"].buffers["moving_var"][:] = variance
nb.freeze(model, "standardize")
nb.initializers.whitening(model["whiten"], (some - mean) / np.sqrt(variance))

# Biases learn 64 times as fast. The head has weights 9 times as small as in the paper, which divides the logits by 9.
lr, decay, bias = 0.375 * batch_size / 256, 0.0153 / 11.5, {"lr_scale": 64, "weight_decay": 0.0153 / 11.5 / 64}
if optimizer == "muon":
    update = nb.Muon(0.02 * (batch_size / 256) ** 0.5, momentum=0.85, adam_scale=0.1, groups={"head": {"adam": True}})
else:
    groups = {"*.bias": bias, "*.beta": bias, "head": {"lr_scale": 1 / 81, "weight_decay": 81 * decay}}
    update = nb.SGD(lr, momentum=0.85, nesterov=True, weight_decay=decay, groups=groups)
moved = nb.augment.RandomTranslate(2 / 32, mode="reflect")
trainer = nb.Trainer(
    model,
    nb.losses.SoftmaxCrossEntropy(label_smoothing=0.2),
    update,
    schedule=nb.schedules.piecewise(((0.0, 0.2), (0.23, 1.0), (1.0, 0.07))),
    average=nb.Lookahead(every=5, weight=0.5),
    augment=[nb.augment.RandomFlip(alternating=True), moved] if flips else [moved],
)
trainer.fit((x, y), epochs=epochs, batch_size=batch_size)

plain = (model.predict(x_test).argmax(axis=1) == y_test).mean()
views = (nb.predict_views(model, x_test, flip=flips).argmax(axis=1) == y_test).mean()
print(f"test accuracy {plain:.2%}, averaged over views {views:.2%}; {sum(trainer.history['seconds']):.1f} s of training")
