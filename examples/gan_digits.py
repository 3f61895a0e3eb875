"""A GAN on digits: a generator learns from the gradient that a discriminator returns for its input. python gan_digits.py [FOLDER]"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import nbnet as nb

BATCH, NOISE = 64, 16
loss = nb.losses.binary_cross_entropy
rng = np.random.default_rng(0)
(images, labels), (held_out, _), _ = nb.datasets.load("digits")
real_images = (images / 255).astype("float32")

generator = nb.Sequential(
    [
        nb.Dense(512, use_bias=False),
        nb.BatchNorm(),
        nb.ReLU(),
        nb.Reshape((4, 4, 32)),
        nb.ConvTranspose2D(32, 4, stride=2, use_bias=False),
        nb.BatchNorm(),
        nb.ReLU(),
        nb.Conv2D(1, 3),
        nb.Sigmoid(),
    ]
)
generator.build((NOISE,), seed=0)
layers = [nb.Conv2D(32, 3, stride=2), nb.LeakyReLU(0.2), nb.Dropout(0.3), nb.Conv2D(64, 3, stride=2), nb.LeakyReLU(0.2), nb.Dropout(0.3)]
discriminator = nb.Sequential([*layers, nb.Flatten(), nb.Dense(1)])
discriminator.build((8, 8, 1), seed=1)
generator_steps, discriminator_steps = nb.Adam(2e-3, beta1=0.5), nb.Adam(2e-3, beta1=0.5)


def noise(rows):
    return rng.normal(size=(rows, NOISE)).astype("float32")


def accuracy(generated):
    """How often the discriminator tells held-out digits from generated ones."""
    return ((discriminator.predict(held_out) > 0).mean() + (discriminator.predict(generated) < 0).mean()) / 2


judge = nb.models.digits()  # a classifier that knows nothing of the two
judge.build((8, 8, 1), seed=2)
nb.Trainer(judge, optimizer=nb.Adam(1e-2), schedule="one_cycle").fit((images, labels), epochs=10, progress=False)
same_noise = noise(500)
pictures = []
for step in range(1001):
    if step in (0, 100, 300, 1000):
        generated = generator.predict(same_noise)
        chances = judge.predict_proba(generated)
        kinds = np.unique(chances.argmax(axis=1)[chances.max(axis=1) > 0.9])
        pictures.append(generated[:12])
        print(
            f"step {step}: the discriminator is right on {accuracy(generated):.0%}, the classifier is 90 % sure of "
            f"{(chances.max(axis=1) > 0.9).mean():.0%} of the generated digits, of {len(kinds)} kinds"
        )
    fake, tape = generator.forward(noise(BATCH), train=True)
    # The discriminator: real digits are 0.9, so that it is never quite sure, and generated ones 0.
    both = np.concatenate([real_images[rng.integers(len(real_images), size=BATCH)], fake])
    score, saved = discriminator.forward(both, train=True)
    target = np.repeat([[0.9], [0.0]], BATCH, axis=0)
    discriminator.backward(loss(score, target).gradient, saved, need_dx=False)
    discriminator_steps.step(discriminator.params, discriminator.backend)
    # The generator: its digits should be 1. Backward writes the discriminator's gradients too, but nobody uses them.
    score, saved = discriminator.forward(fake, train=True)
    dfake = discriminator.backward(loss(score, np.ones((BATCH, 1))).gradient, saved)
    generator.backward(dfake, tape, need_dx=False)
    generator_steps.step(generator.params, generator.backend)

figure = Figure(figsize=(8, 3), layout="constrained")
for axes, picture in zip(figure.subplots(4, 12).flat, np.concatenate(pictures)):
    axes.imshow(picture[..., 0], cmap="gray_r", vmin=0, vmax=1)
    axes.set_axis_off()
figure.savefig(Path(*sys.argv[1:2]) / "gan_digits.png", dpi=120)
