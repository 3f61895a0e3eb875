"""The networks that estimators train: the defaults, and how their batch norms weigh rows."""

from __future__ import annotations

from typing import Any

from nbnet import models
from nbnet.errors import ArgumentError, unknown
from nbnet.functional import checks
from nbnet.layers import BatchNorm, Dense, Layer, ReLU, Sequential

Shape = tuple[int, ...]


def mlp(outputs: int) -> Sequential:
    """For tables: batch norm of the features, dense 128, batch norm, ReLU, dense.

    The first batch norm has no gamma and beta, since the second one would undo them; neither depends on how often rows are repeated.
    """
    features = BatchNorm(0.99, center=False, scale=False, unbiased=False)
    return Sequential([features, Dense(128, use_bias=False), BatchNorm(unbiased=False), ReLU(), Dense(outputs)])


def make(network: Any, input_shape: Shape, outputs: int) -> Sequential:
    """The unbuilt network of an estimator.

    Args:
        network: None, a name in nb.models.MODELS, or a function (input_shape, outputs) -> Sequential.
    Raises:
        ArgumentError: it is none of them, or does not fit the input.
    """
    if callable(network):
        if isinstance(network, (type, Layer)) or not checks.takes(network, input_shape, outputs):
            raise ArgumentError(f"network={network!r}: expected a name, or a function (input_shape, outputs) -> nb.Sequential")
        found = network(input_shape, outputs)
        if not isinstance(found, Sequential) or found.input_shape is not None:
            got = "a Sequential that is built already" if isinstance(found, Sequential) else type(found).__name__
            raise ArgumentError(f"the function network returned {got}, expected a new nb.Sequential that is not built")
        return found
    if network is None and len(input_shape) == 1:
        return mlp(outputs)
    name = "lenet" if network is None else network
    if name not in list(models.MODELS):
        raise ArgumentError(f"{unknown('network', name, models.MODELS)}, or a function (input_shape, outputs) -> nb.Sequential")
    if len(input_shape) != 3:
        raise ArgumentError(
            f"network {name!r} is for images, got X with rows of shape {input_shape}: give image_shape=(height, width, channels), or "
            "network=, a function (input_shape, outputs) -> nb.Sequential"
        )
    return models.get(name)(outputs)


class Weighted(Sequential):
    """A built model with the weights of the rows as a second input: its batch norms weigh the statistics of batches by them.

    A row of weight 2 is then the same as two rows. Parameters, buffers and layers are those of the model.

    Args:
        model: with one input. Batch norms in branches do not weigh.
    """

    replayable = False

    def __init__(self, model: Sequential) -> None:
        super().__init__(model.layers)
        vars(self).update(vars(model))
        self.input_shape: Any = (model.input_shape, (1,))
        self.fused = False
        self._arrange()

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x, weights = x
        tape = []
        for layer in self.layers:
            options = {"weights": weights[:, 0]} if isinstance(layer, BatchNorm) and layer.needs_statistics(train) else {}
            x, saved = layer.forward(x, train, **options)
            tape.append(saved)
        return x, tuple(tape) if train else None
