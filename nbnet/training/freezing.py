"""Freezing parts of a model by name, to fine-tune the rest."""

from __future__ import annotations

from typing import Any, NamedTuple

from nbnet.errors import ArgumentError, BuildError, unknown
from nbnet.layers import BatchNorm, Layer
from nbnet.layers.containers import Container
from nbnet.optimizers.groups import fits

STATISTICS = "use_batch_statistics", "update_statistics"  # switches of BatchNorm


class Switch(NamedTuple):
    """An attribute that is True or False and decides what training changes."""

    owner: Any  # a Param or a BatchNorm
    attribute: str
    concerns: list[str]  # names of parameters or buffers in the model


def freeze(model: Layer, *patterns: str) -> None:
    """Keep parameters and moving statistics that patterns name as they are in training.

    Such a parameter is not trainable. A batch norm whose moving statistics are named no longer updates them, and normalises by them in
    training too, as Keras' trainable=False does; "*.gamma" names only a parameter. Dropout goes on, and gradients are still computed.
    Checkpoints of a Trainer hold what is frozen.

    Args:
        model: a built model or layer. Layers that other models contain too are frozen there as well.
        patterns: of names of parameters and buffers, as those of an optimiser's groups: "conv*", "stem", "4.residual.*"; none names all.
    Raises:
        BuildError: the model is not built. ArgumentError: a pattern names nothing; nothing has changed.
    """
    _set(model, patterns, "freeze", False)


def unfreeze(model: Layer, *patterns: str) -> None:
    """Undo `freeze` for what patterns name: parameters are trainable, and batch norms use and update the statistics of the batch.

    Args, Raises: as for freeze.
    """
    _set(model, patterns, "unfreeze", True)


def switches(model: Layer) -> dict[str, Switch]:
    """All switches of a built model, by name: "0.conv2d.weight.trainable", "1.batchnorm.update_statistics"."""
    if isinstance(model, Container):
        model.refresh()
    found = {f"{name}.trainable": Switch(param, "trainable", [name]) for name, param in model.params.items()}
    names = {id(array): name for name, array in model.buffers.items()}
    for layer in model.walk():
        if isinstance(layer, BatchNorm):
            own = [names[id(array)] for array in layer.buffers.values()]
            where = own[0].removesuffix(next(iter(layer.buffers)))
            found |= {f"{where}{attribute}": Switch(layer, attribute, own) for attribute in STATISTICS}
    return found


def _set(model: Layer, patterns: tuple[str, ...], function: str, value: bool) -> None:
    if not isinstance(model, Layer):
        raise ArgumentError(f"{function} got {type(model).__name__}, expected a built model or layer: write nb.{function}(model, 'conv*')")
    if model.input_shape is None:
        raise BuildError(f"{function} expects a built model: call model.build(input_shape) first")
    if wrong := [pattern for pattern in patterns if not isinstance(pattern, str)]:
        raise ArgumentError(f"{function} got the pattern {wrong[0]!r}, expected text: write nb.{function}(model, *patterns)")
    found = switches(model).values()
    names = list(dict.fromkeys(name for switch in found for name in switch.concerns))
    for pattern in patterns:
        if not any(fits(pattern, name) for name in names):
            raise ArgumentError(f"{function}: {unknown('parameter', pattern, names)}")
    for owner, attribute, concerns in found:
        if any(fits(pattern, name) for pattern in patterns or ("*",) for name in concerns):
            setattr(owner, attribute, value)
