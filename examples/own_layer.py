"""Write your own layer: forward, backward next to it, and a check that the two agree."""

import numpy as np

import nbnet as nb


class Swish(nb.Layer):
    """y = x * sigmoid(x), element by element   (Ramachandran, Zoph and Le 2017)."""

    def forward(self, x, train=False):
        x = self._check(x)
        gate = 1 / (1 + np.exp(-x))
        return x * gate, (x, gate) if train else None

    def backward(self, dy, saved, need_dx=True):
        x, gate = saved
        return dy * (gate + x * gate * (1 - gate))


x = np.random.default_rng(0).standard_normal((4, 5))
print("relative error of the gradient:", nb.gradcheck(Swish(), x))

model = nb.Sequential([nb.Dense(16), Swish(), nb.Dense(1)])
model.build((1,), seed=0)
inputs = np.linspace(-3, 3, 200, dtype=np.float32)[:, None]
trainer = nb.Trainer(model, loss="mean_squared_error", optimizer=nb.Adam(0.02))
history = trainer.fit((inputs, np.sin(inputs)), epochs=150, batch_size=50)
print(f"fit of a sine: mean squared error {history['loss'][0]:.3f} at first, {history['loss'][-1]:.5f} at last")
