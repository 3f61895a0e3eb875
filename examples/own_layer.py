"""Write your own layer: parameters, buffers, forward with backward next to it, and a check that the two agree."""

import numpy as np

import nbnet as nb


class PReLU(nb.Layer):
    """y = x where x > 0, else slope * x, with a learned slope per channel   (He, Zhang, Ren and Sun 2015).

    Params: slope (C,). Buffers: active (C,), the moving share of positive inputs, to see which channels have died.
    """

    def __init__(self, start=0.25, decay=0.9):
        super().__init__()
        self.start, self.decay = start, decay

    def create(self, input_shape):
        channels = input_shape[-1:]
        self.add_param("slope", channels, lambda rng, shape: np.full(shape, self.start))
        self.add_buffer("active", np.full(channels, 0.5))
        return input_shape

    def forward(self, x, train=False):
        x = self.check_input(x)
        if train:
            axes = tuple(range(x.ndim - 1))
            self.buffers["active"][:] = self.decay * self.buffers["active"] + (1 - self.decay) * (x > 0).mean(axis=axes)
        return np.where(x > 0, x, self.params["slope"].value * x), x if train else None

    def backward(self, dy, saved, need_dx=True):
        x = saved
        axes = tuple(range(x.ndim - 1))
        self.params["slope"].grad[:] = np.where(x > 0, 0, dy * x).sum(axis=axes)
        return np.where(x > 0, dy, self.params["slope"].value * dy)


class Double(nb.Layer):
    """y = 2 * x, by nbnet's kernels alone: such a layer may say that it is replayable, and then costs no Python in training."""

    replayable = True

    def forward(self, x, train=False):
        x = self.check_input(x)
        y = self.backend.empty(x.shape, x.dtype)
        self.backend.kernel("array.scale")(x.reshape(-1), 2.0, y.reshape(-1))
        return y, () if train else None

    def backward(self, dy, saved, need_dx=True):
        return self.forward(dy)[0]


x = np.random.default_rng(0).standard_normal((4, 5))
for layer in (PReLU(), Double()):
    errors = nb.gradcheck(layer, x)  # raises an error if backward and finite differences disagree
    print(f"{layer}: relative errors of the gradients {', '.join(f'{name} {error:.0e}' for name, error in errors.items())}")

model = nb.Sequential([nb.Dense(16), PReLU(), Double(), nb.Dense(1)])
model.build((1,), seed=0)
inputs = np.linspace(-3, 3, 200, dtype=np.float32)[:, None]
trainer = nb.Trainer(model, loss="mean_squared_error", optimizer=nb.Adam(0.02))
history = trainer.fit((inputs, np.sin(inputs)), epochs=150, batch_size=50)
print(f"fit of a sine: mean squared error {history['loss'][0]:.3f} at first, {history['loss'][-1]:.5f} at last")
print(f"learned slopes from {model.params['1.prelu.slope'].value.min():.2f} to {model.params['1.prelu.slope'].value.max():.2f}")
