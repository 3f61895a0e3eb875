"""TensorFlow: a whole training step in one tf.function, NHWC, with Keras's layers and optimiser.

XLA (jit_compile=True) is tried too when a step is built, and the faster variant is kept: TensorFlow's guide advises to measure both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from nbnet.bench import networks, workloads
from nbnet.bench.networks import EPS, LR, Network
from nbnet.bench.workloads import Workload

TITLE = "TensorFlow"
PACKAGE = "tensorflow"
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
OPS = tuple(op for op in workloads.OPS if op not in workloads.OF_TORCH_ALONE)
SWEEPS = True


class Contender:
    """TensorFlow on the processor."""

    def __init__(self, threads: int) -> None:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        tf.random.set_seed(0)  # the first loss with dropout is compared: with few rows and a random seed it would sometimes be far off
        self.tf = tf
        self.xla: dict[str, bool] = {}

    @staticmethod
    def numpy(tensor: Any) -> np.ndarray:
        return tensor.numpy()

    def kernel(self, workload: Workload, arrays: dict[str, np.ndarray]) -> Callable[[], tuple[Any, ...]]:
        if workload.op == "adam":
            return self._adam(**arrays)
        make = getattr(self, "_" + workload.op.replace("-", "_"))
        function = self.tf.function(make(workload.part) if workload.op == "conv2d" else make)
        arguments = [self.tf.constant(array) for array in arrays.values()]

        return lambda: function(*arguments)

    def _conv2d(self, part: str):
        nn, same = self.tf.nn, "SAME"
        if part == "forward":
            return lambda x, weight, dy: (nn.conv2d(x, weight, 1, same),)
        if part == "backward_data":
            return lambda x, weight, dy: (
                self.tf.raw_ops.Conv2DBackpropInput(input_sizes=x.shape, filter=weight, out_backprop=dy, **_UNIT),
            )
        return lambda x, weight, dy: (self.tf.raw_ops.Conv2DBackpropFilter(input=x, filter_sizes=weight.shape, out_backprop=dy, **_UNIT),)

    def _gradients(self, function: Callable[..., Any], dy: Any, *leaves: Any) -> tuple[Any, ...]:
        with self.tf.GradientTape() as tape:
            tape.watch(leaves)
            y = function(*leaves)
        return (y, *tape.gradient(y, leaves, output_gradients=dy))

    def _batchnorm(self, x, dy, gamma, beta):
        def normalize(x, gamma, beta):
            return self.tf.nn.relu(self.tf.compat.v1.nn.fused_batch_norm(x, gamma, beta, epsilon=EPS, is_training=True)[0])

        return self._gradients(normalize, dy, x, gamma, beta)

    def _dropout(self, x, dy):
        return self._gradients(lambda x: self.tf.nn.dropout(x, workloads.RATE), dy, x)

    def _dense(self, x, weight, bias, dy):
        return self._gradients(lambda x, weight, bias: self.tf.nn.bias_add(x @ weight, bias), dy, x, weight, bias)

    def _max_pool(self, x, dy):
        return self._gradients(lambda x: self.tf.nn.max_pool2d(x, 2, 2, "VALID"), dy, x)

    def _softmax(self, logits, labels):
        def loss(logits):
            return self.tf.reduce_mean(self.tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))

        return self._gradients(loss, None, logits)

    def _adam(self, value, grad):
        variable, grad = self.tf.Variable(value), self.tf.constant(grad)
        optimizer = self._optimizer([variable])

        @self.tf.function
        def update():
            optimizer.apply_gradients([(grad, variable)])

        def run():
            update()
            return (variable,)

        return run

    def _optimizer(self, variables: list[Any]) -> Any:
        optimizer = self.tf.keras.optimizers.Adam(LR, epsilon=1e-8)
        optimizer.build(variables)
        return optimizer

    # ------------------------------------------------------------------------------------------------ training

    def step(self, network: Network, rows: int) -> Callable[[], float]:
        return self._step(network, rows, False)[0]

    exact_step = step

    def tuned_step(self, network: Network, rows: int) -> Callable[[], float]:
        """With or without XLA, whichever is faster here; measured once per network."""
        if network.title in self.xla:
            return self._step(network, rows, self.xla[network.title])[0]
        tried = [self._step(network, rows, xla) for xla in (False, True)]
        times = [self._seconds(step, variables) for step, variables in tried]
        self.xla[network.title] = times[1] < times[0]
        return tried[self.xla[network.title]][0]

    @staticmethod
    def _seconds(step: Callable[[], float], variables: list[Any]) -> float:
        """The fastest of four steps. Their changes are undone: compiling the step again would take long."""
        before, times = [variable.numpy() for variable in variables], []
        for _ in range(4):
            began = time.perf_counter()
            step()
            times.append(time.perf_counter() - began)
        for variable, value in zip(variables, before):
            variable.assign(value)
        return min(times)

    def _step(self, network: Network, rows: int, xla: bool) -> tuple[Callable[[], float], list[Any]]:
        """A training step, and all variables that it changes."""
        tf = self.tf
        model = self._model(network)
        variables = model.trainable_variables
        optimizer = self._optimizer(variables)
        x, y = map(tf.constant, networks.batch(network, rows))

        @tf.function(jit_compile=xla)
        def update(x, y):
            with tf.GradientTape() as tape:
                prediction = model(x, training=True)
                if network.loss == "softmax_cross_entropy":
                    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, prediction))
                else:
                    loss = tf.reduce_sum((prediction - y) ** 2) / rows
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
            return loss

        return lambda: float(update(x, y)), [*model.variables, *optimizer.variables]

    def _model(self, network: Network) -> Any:
        layers, dtype = self.tf.keras.layers, network.dtype
        kinds: dict[str, Callable[..., Any]] = {
            "conv": lambda filters: layers.Conv2D(filters, 3, padding="same", use_bias=False, dtype=dtype),
            "dense": lambda units: layers.Dense(units, dtype=dtype),
            "norm": lambda: layers.BatchNormalization(epsilon=EPS, momentum=0.9, dtype=dtype),
            "relu": lambda: layers.ReLU(dtype=dtype),
            "tanh": lambda: layers.Activation("tanh", dtype=dtype),
            "pool": lambda size: layers.MaxPooling2D(size, dtype=dtype),
            "mean": lambda: layers.GlobalAveragePooling2D(dtype=dtype),
            "flatten": lambda: layers.Flatten(dtype=dtype),
            "dropout": lambda rate: layers.Dropout(rate, dtype=dtype),
        }
        model = self.tf.keras.Sequential([kinds[kind](*options) for kind, *options in network.layers])
        model.build((None, *network.input_shape))
        for layer, arrays in zip(model.layers, networks.first_weights(network)):
            if arrays and layer.__class__.__name__ != "BatchNormalization":
                layer.set_weights(list(arrays.values()))
        return model


_UNIT = {"strides": [1, 1, 1, 1], "padding": "SAME"}
