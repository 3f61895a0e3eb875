"""JAX: a whole training step in one jit, with donated parameters and optimiser state, NHWC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nbnet.bench import networks, workloads
from nbnet.bench.networks import EPS, LR, Network
from nbnet.bench.workloads import Workload

TITLE = "JAX"
PACKAGE = "jax"
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "NPROC": "{threads}"}
OPS = tuple(op for op in workloads.OPS if op not in workloads.OF_TORCH_ALONE)
SWEEPS = False
LAYOUT = ("NHWC", "HWIO", "NHWC")


class Contender:
    """JAX on the processor."""

    def __init__(self, threads: int) -> None:
        import jax

        jax.config.update("jax_enable_x64", True)  # for the float64 workloads; arrays of float32 stay float32
        self.jax, self.jnp = jax, jax.numpy

    @staticmethod
    def numpy(array: Any) -> np.ndarray:
        return np.asarray(array)

    def kernel(self, workload: Workload, arrays: dict[str, np.ndarray]) -> Callable[[], tuple[Any, ...]]:
        if workload.op == "adam":
            return self._adam_kernel(**arrays)
        make = getattr(self, "_" + workload.op.replace("-", "_"))
        function = self.jax.jit(make(workload.part) if workload.op == "conv2d" else make)
        arguments = [self.jnp.asarray(array) for array in arrays.values()]
        if workload.op != "dropout":
            return lambda: self.jax.block_until_ready(function(*arguments))
        keys = iter(self.jax.random.split(self.jax.random.key(0), 1 << 16))
        return lambda: self.jax.block_until_ready(function(*arguments, next(keys)))

    # Each takes the workload's arrays in order and returns its results; jit drops what is not used.

    def _convolve(self, x, weight):
        return self.jax.lax.conv_general_dilated(x, weight, (1, 1), "SAME", dimension_numbers=LAYOUT)

    def _conv2d(self, part: str):
        if part == "forward":
            return lambda x, weight, dy: (self._convolve(x, weight),)
        which = 0 if part == "backward_data" else 1
        return lambda x, weight, dy: (self.jax.vjp(self._convolve, x, weight)[1](dy)[which],)

    def _batchnorm(self, x, dy, gamma, beta):
        def normalize(x, gamma, beta):
            return self.jax.nn.relu(self._norm(x, gamma, beta))

        y, back = self.jax.vjp(normalize, x, gamma, beta)
        return y, *back(dy)

    def _norm(self, x, gamma, beta):
        axes = tuple(range(x.ndim - 1))
        mean, var = x.mean(axes), x.var(axes)
        return (x - mean) * (gamma * self.jax.lax.rsqrt(var + EPS)) + beta

    def _drop(self, x, key, rate):
        keep = self.jax.random.bernoulli(key, 1 - rate, x.shape)
        return self.jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)

    def _dropout(self, x, dy, key):
        y, back = self.jax.vjp(lambda x: self._drop(x, key, workloads.RATE), x)
        return y, *back(dy)

    def _dense(self, x, weight, bias, dy):
        y, back = self.jax.vjp(lambda x, weight, bias: x @ weight + bias, x, weight, bias)
        return y, *back(dy)

    def _pool(self, x, size):
        window = (1, size, size, 1)
        return self.jax.lax.reduce_window(x, -np.inf, self.jax.lax.max, window, window, "VALID")

    def _max_pool(self, x, dy):
        y, back = self.jax.vjp(lambda x: self._pool(x, 2), x)
        return y, *back(dy)

    def _cross_entropy(self, logits, labels):
        return -self.jnp.take_along_axis(self.jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()

    def _softmax(self, logits, labels):
        return self.jax.value_and_grad(self._cross_entropy)(logits, labels)

    def _adam(self, value, grad, m, v, t):
        """Kingma and Ba 2015, on any tree of arrays: value, m, v."""
        tree = self.jax.tree.map
        m = tree(lambda m, g: 0.9 * m + 0.1 * g, m, grad)
        v = tree(lambda v, g: 0.999 * v + 0.001 * g * g, v, grad)
        factor = LR * self.jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        eps = 1e-8 * self.jnp.sqrt(1 - 0.999**t)
        return tree(lambda p, m, v: (p - factor * m / (self.jnp.sqrt(v) + eps)).astype(p.dtype), value, m, v), m, v

    def _adam_kernel(self, value, grad):
        update = self.jax.jit(self._adam, donate_argnums=(0, 2, 3))
        value, grad = self.jnp.array(value), self.jnp.asarray(grad)
        state = [value, self.jnp.zeros_like(value), self.jnp.zeros_like(value), 0]

        def run():
            state[3] += 1
            state[:3] = self.jax.block_until_ready(update(state[0], grad, state[1], state[2], float(state[3])))
            return (state[0],)

        return run

    # ------------------------------------------------------------------------------------------------ training

    def step(self, network: Network, rows: int) -> Callable[[], float]:
        jax, jnp = self.jax, self.jnp
        params = [{name: jnp.array(array) for name, array in arrays.items()} for arrays in networks.first_weights(network)]
        norms = [shape[-1] for (kind, *_), shape in zip(network.layers, networks.shapes(network)) if kind == "norm"]
        moving = [(jnp.zeros(channels, network.dtype), jnp.ones(channels, network.dtype)) for channels in norms]
        zeros = jax.tree.map(jnp.zeros_like, params)
        state = (params, zeros, jax.tree.map(jnp.zeros_like, params), moving, jnp.zeros((), network.dtype), jax.random.key(0))
        x, y = map(jnp.asarray, networks.batch(network, rows))

        def loss_of(params, moving, x, y, key):
            prediction, moving = self._forward(network, params, moving, x, key)
            if network.loss == "softmax_cross_entropy":
                return self._cross_entropy(prediction, y), moving
            return ((prediction - y) ** 2).sum() / len(x), moving

        def update(state, x, y):
            params, m, v, moving, t, key = state
            key, now = jax.random.split(key)
            (loss, moving), grads = jax.value_and_grad(loss_of, has_aux=True)(params, moving, x, y, now)
            t = t + 1
            params, m, v = self._adam(params, grads, m, v, t)
            return loss, (params, m, v, moving, t, key)

        compiled = jax.jit(update, donate_argnums=0)

        def step() -> float:
            nonlocal state
            loss, state = compiled(state, x, y)
            return float(jax.block_until_ready(loss))

        return step

    def _forward(self, network: Network, params, moving, x, key):
        """The prediction and the updated moving statistics."""
        updated: list[Any] = []
        for (kind, *options), arrays in zip(network.layers, params):
            if kind == "conv":
                x = self._convolve(x, arrays["weight"])
            elif kind == "dense":
                x = x @ arrays["weight"] + arrays["bias"]
            elif kind == "norm":
                axes = tuple(range(x.ndim - 1))
                mean, var = moving[len(updated)]
                updated.append((0.9 * mean + 0.1 * x.mean(axes), 0.9 * var + 0.1 * x.var(axes)))
                x = self._norm(x, arrays["gamma"], arrays["beta"])
            elif kind == "dropout":
                x = self._drop(x, key, options[0]) if options[0] else x
            elif kind == "pool":
                x = self._pool(x, options[0])
            elif kind in ("relu", "tanh"):
                x = (self.jax.nn.relu if kind == "relu" else self.jnp.tanh)(x)
            else:
                x = x.mean((1, 2)) if kind == "mean" else x.reshape(len(x), -1)
        return x, self.jax.lax.stop_gradient(updated)
