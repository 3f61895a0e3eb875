"""PyTorch, eager, as installed: channels-last memory and the fused optimiser, as its performance tuning guide advises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nbnet.bench import networks, workloads
from nbnet.bench.networks import EPS, LR, Network
from nbnet.bench.workloads import Workload

TITLE = "PyTorch"
PACKAGE = "torch"
ENVIRONMENT = {"OMP_NUM_THREADS": "{threads}"}
OPS = tuple(workloads.OPS)
SWEEPS = True


class Contender:
    """PyTorch. A subclass overrides `wrap` to change a model or function before it is used."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(0)  # the first loss with dropout is compared: with few rows and a random seed it would sometimes be far off
        self.torch = torch

    @staticmethod
    def wrap(function: Any) -> Any:
        return function

    @staticmethod
    def numpy(tensor: Any) -> np.ndarray:
        array = tensor.detach().numpy()
        return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array

    def tensor(self, array: np.ndarray) -> Any:
        """The array as a tensor; NHWC images become NCHW in channels-last memory, without a copy."""
        made = self.torch.from_numpy(array)
        return made.permute(0, 3, 1, 2) if array.ndim == 4 else made

    def kernel(self, workload: Workload, arrays: dict[str, np.ndarray]) -> Callable[[], tuple[Any, ...]]:
        if workload.op in workloads.CONVOLUTIONS:
            return self._convolution(workload.convolution, **arrays)
        make = getattr(self, "_" + workload.op.replace("-", "_"))
        return make(workload.part, **arrays) if workload.part else make(**arrays)

    def _conv2d(self, part: str, x, weight, dy):
        torch = self.torch
        weight = torch.from_numpy(weight.transpose(3, 2, 0, 1).copy()).contiguous(memory_format=torch.channels_last)
        x, dy = self.tensor(x), self.tensor(dy)
        if part == "forward":

            def forward():
                with torch.no_grad():
                    return (torch.nn.functional.conv2d(x, weight, padding=1),)

            return forward
        needed = [part == "backward_data", part == "backward_weights", False]
        arguments = (dy, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, needed)

        def backward():
            dx, dweight, _ = torch.ops.aten.convolution_backward(*arguments)
            # Permuted so that `numpy`, which moves channels to the end, returns HWIO.
            return (dx if part == "backward_data" else dweight.permute(2, 0, 3, 1),)

        return backward

    def _gradients(self, function: Callable[..., Any], dy: Any, *leaves: Any):
        """A function that calls function(*leaves) and its backward and returns y and the gradients of the leaves."""
        leaves = tuple(leaf.detach().requires_grad_() for leaf in leaves)
        function = self.wrap(function)

        def run():
            y = function(*leaves)
            return (y, *self.torch.autograd.grad(y, leaves, dy))

        return run

    def _convolution(self, convolution: workloads.Convolution, x, weight, dy):
        """Sequences are images of height 1 in channels-last memory, as PyTorch runs them fastest."""
        weight = self.torch.from_numpy(weight.transpose(3, 2, 0, 1).copy()).contiguous(memory_format=self.torch.channels_last)
        padding, stride, groups = convolution.padding, convolution.stride, convolution.groups

        def convolve(x, weight):
            return self.torch.nn.functional.conv2d(x, weight, None, stride, padding, 1, groups)

        run = self._gradients(convolve, self.tensor(dy), self.tensor(x), weight)

        def permuted():
            y, dx, dweight = run()
            return y, dx, dweight.permute(2, 0, 3, 1)  # so that `numpy`, which moves channels to the end, returns HWIO

        return permuted

    def _activation(self, name: str, x, dy):
        return self._gradients(getattr(self.torch.nn.functional, name), self.tensor(dy), self.tensor(x))

    def _batchnorm(self, x, dy, gamma, beta):
        functional = self.torch.nn.functional

        def normalize(x, gamma, beta):
            return functional.relu(functional.batch_norm(x, None, None, gamma, beta, training=True, eps=EPS))

        return self._gradients(normalize, self.tensor(dy), self.tensor(x), self.tensor(gamma), self.tensor(beta))

    def _dropout(self, x, dy):
        def drop(x):
            return self.torch.nn.functional.dropout(x, workloads.RATE)

        return self._gradients(drop, self.tensor(dy), self.tensor(x))

    def _dense(self, x, weight, bias, dy):
        weight = self.torch.from_numpy(weight.T.copy())
        run = self._gradients(self.torch.nn.functional.linear, self.tensor(dy), self.tensor(x), weight, self.tensor(bias))

        def transposed():
            y, dx, dweight, dbias = run()
            return y, dx, dweight.T, dbias

        return transposed

    def _max_pool(self, x, dy):
        def pool(x):
            return self.torch.nn.functional.max_pool2d(x, 2)

        return self._gradients(pool, self.tensor(dy), self.tensor(x))

    def _softmax(self, logits, labels):
        labels = self.tensor(labels)

        def loss(logits):
            return self.torch.nn.functional.cross_entropy(logits, labels)

        return self._gradients(loss, None, self.tensor(logits))

    def _adam(self, value, grad):
        param = self.torch.nn.Parameter(self.tensor(value))
        param.grad = self.tensor(grad)
        optimizer = self.torch.optim.Adam([param], lr=LR, fused=True)

        def run():
            optimizer.step()
            return (param,)

        return run

    # ------------------------------------------------------------------------------------------------ training

    def step(self, network: Network, rows: int) -> Callable[[], float]:
        torch = self.torch
        model = self._model(network).to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
        x, y = map(self.tensor, networks.batch(network, rows))

        def loss_of(x, y):
            prediction = model(x)
            if network.loss == "softmax_cross_entropy":
                return torch.nn.functional.cross_entropy(prediction, y)
            return ((prediction - y) ** 2).sum() / len(x)

        loss_of = self.wrap(loss_of)

        def step() -> float:
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(x, y)
            loss.backward()
            optimizer.step()
            return loss.item()

        return step

    def _model(self, network: Network) -> Any:
        """The network as a torch.nn.Sequential with its first weights."""
        nn, dtype = self.torch.nn, getattr(self.torch, network.dtype)
        made: list[Any] = []
        before = network.input_shape
        for (kind, *options), shape, arrays in zip(network.layers, networks.shapes(network), networks.first_weights(network)):
            if kind in ("conv", "depthwise"):
                weight, stride, groups = arrays["weight"], 1, 1
                if kind == "depthwise":
                    weight, stride, groups = weight.transpose(0, 1, 3, 2), options[0], before[-1]
                size = weight.shape[0]
                layer = nn.Conv2d(before[-1], shape[-1], size, stride, size // 2, groups=groups, bias=False, dtype=dtype)
                layer.weight.data.copy_(self.torch.from_numpy(weight.transpose(3, 2, 0, 1).copy()))
            elif kind == "dense":
                layer = nn.Linear(before[-1], shape[-1], dtype=dtype)
                layer.weight.data.copy_(self.torch.from_numpy(arrays["weight"].T.copy()))
                layer.bias.data.zero_()
            elif kind == "norm":
                layer = (nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d)(shape[-1], eps=EPS, dtype=dtype)
            elif kind == "flatten":
                made.append(_ChannelsLast(nn))
                layer = nn.Flatten()
            elif kind == "mean":
                made.append(nn.AdaptiveAvgPool2d(1))
                layer = nn.Flatten()
            else:
                kinds: dict[str, Callable[..., Any]] = {
                    "relu": lambda: nn.ReLU(inplace=True),
                    "tanh": nn.Tanh,
                    "pool": nn.MaxPool2d,
                    "dropout": nn.Dropout,
                }
                layer = kinds[kind](*options)
            made.append(layer)
            before = shape
        return nn.Sequential(*made)


def _ChannelsLast(nn: Any) -> Any:
    """NCHW to NHWC before flattening, so that dense weights have the same order; free on channels-last memory."""

    class Permute(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    return Permute()
