"""A trained network inside a jitted loop: a simulation that asks a small CNN 100,000 times, without Python between the calls.

A digit's picture is damaged pixel by pixel until the network no longer recognises it; then comes the next digit. The last lines print
the time of one prediction from Python.
"""

import time

import numba
import numpy as np

import nbnet as nb

CALLS = 100_000

(x, y), (x_test, y_test), _ = nb.datasets.load("digits")
model = nb.models.digits()
model.build(x.shape[1:], seed=0)
trainer = nb.Trainer(model, optimizer=nb.Adam(3e-3), schedule="cosine")
trainer.fit((x, y), epochs=10, batch_size=64, progress=False)

images, labels = x_test.astype(np.float32) / 255, y_test
predict_into = nb.compile(model, into=True)  # a jitted function, to be called by others


@numba.njit(nogil=True)
def simulate(images, labels, calls, rng):
    """How many pixels it takes to damage until a digit is not recognised: the mean over all digits that `calls` predictions reach."""
    logits, steps, digits, n = np.empty(10, np.float32), 0, 0, 0
    image = images[0].copy()
    for _ in range(calls):
        predict_into(image, logits)
        if logits.argmax() == labels[n]:
            image[rng.integers(0, 8), rng.integers(0, 8), 0] = rng.random()
            steps += 1
        else:
            digits, n = digits + 1, (n + 1) % len(images)
            image[:] = images[n]
    return steps / max(digits, 1)


simulate(images, labels, 10, np.random.default_rng(0))  # compiles
start = time.perf_counter()
pixels = simulate(images, labels, CALLS, np.random.default_rng(1))
seconds = time.perf_counter() - start
print(f"{CALLS:,} predictions in {seconds:.2f} s, {1e6 * seconds / CALLS:.1f} us each; a digit survives {pixels:.0f} wrong pixels")

predictor, one = nb.Predictor(model), images[:1]
for name, predict in {"nb.Predictor": predictor.predict, "model.predict": model.predict}.items():
    predict(one), predict(one)
    start = time.perf_counter()
    for _ in range(1000):
        predict(one)
    print(f"{name} from Python: {1e3 * (time.perf_counter() - start):.1f} us each")
