"""What to write here instead of what other libraries call it: hints at the end of error messages."""

from __future__ import annotations

import functools
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from nbnet.errors import CallError

Options = ParamSpec("Options")
Result = TypeVar("Result")

PACKAGE = str(Path(__file__).parent)

# Arguments of other libraries; a function that has the argument itself never asks.
ARGUMENTS = {
    "activation": "write the activation as the next layer, such as nb.ReLU()",
    "affine": "write center=, scale=",
    "alpha": "write rho= (RMSProp) or slope= (LeakyReLU)",
    "beta_1": "write beta1=",
    "beta_2": "write beta2=",
    "betas": "write beta1=, beta2=",
    "bias": "write use_bias=",
    "bias_regularizer": "set model.params[name].regularizer after build",
    "class_weight": "write Trainer(loss=nb.losses.SoftmaxCrossEntropy(class_weight=[1, 2, ...]))",
    "clipnorm": "write Trainer(clip_norm=)",
    "device": 'write model.build(input_shape, backend="cuda") or another backend',
    "drop_prob": "write rate=",
    "epsilon": "write eps=",
    "filepath": "write path=",
    "in_channels": "leave it out: build(input_shape) finds it",
    "in_features": "leave it out: build(input_shape) finds it",
    "initial_epoch": "leave it out: a restored trainer goes on where it was",
    "input_dim": "write model.build((inputs,))",
    "input_shape": "write model.build(input_shape)",
    "kernel_initializer": "write weight_initializer=",
    "kernel_regularizer": "set model.params[name].regularizer after build",
    "learning_rate": "in the optimizer write lr=",
    "lr": "write optimizer=nb.Adam(lr)",
    "metrics": "write Trainer(metrics=[...]); loss and accuracy are always there",
    "negative_slope": "write slope=",
    "num_features": "leave it out: build(input_shape) finds it",
    "optim": "write optimizer=",
    "out_channels": "write filters=",
    "out_features": "write units=",
    "p": "write rate=",
    "pool_size": "write size=",
    "restore_best_weights": "write restore_best=",
    "sample_weight": "write trainer.fit((x, y), epochs=10, sample_weight=weights)",
    "shuffle": "leave it out: batches are shuffled by Trainer(seed=)",
    "strides": "write stride=",
    "validation_data": "write validation=(x, y)",
    "verbose": "write progress=True or progress=False",
}
_TRAINER = "trainer = nb.Trainer(model, loss=..., optimizer=nb.Adam(1e-3)), then trainer."
_MOVE = "; what one has learnt gets there by save_weights and load_weights"
# Methods that models have in other libraries.
METHODS = {
    "add": "give all layers to nb.Sequential([...])",
    "compile": f"write {_TRAINER}fit((x, y), epochs=10)",
    "cuda": f'write model.build(input_shape, backend="cuda") for a new model{_MOVE}',
    "eval": "nothing is needed: forward(x) and predict(x) use moving statistics, forward(x, train=True) those of the batch",
    "evaluate": f"write {_TRAINER}evaluate(x, y)",
    "fit": f"write {_TRAINER}fit((x, y), epochs=10)",
    "load_state_dict": "write model.load_weights(path), nb.convert.from_torch(state_dict, model), or assign to the arrays of model.state()",
    "parameters": "write model.params, a dict",
    "requires_grad_": "write nb.freeze(model), or nb.freeze(model, 'conv*') for a part",
    "save": "write model.save_weights(path), or trainer.save(path) for the whole run",
    "state_dict": "write model.state()",
    "to": f"write model.build(input_shape, backend=..., dtype=...) for a new model{_MOVE}",
    "train": "nothing is needed: forward(x, train=True) trains",
}


def check_keywords(cls: type, given: Mapping[str, Any]) -> None:
    """Check that the constructor of a class has all keywords of a call.

    Raises:
        CallError: it lacks one.
    """
    names = _keywords(cls)
    wrong = next((name for name in given if names is not None and name not in names), None)
    if names is not None and wrong is not None:
        raise CallError(f"{cls.__name__} got an unexpected keyword argument {wrong!r}: {_instead(wrong, names)}")


def explained(usage: str) -> Callable[[Callable[Options, Result]], Callable[Options, Result]]:
    """A decorator: a call with arguments that a function does not have raises CallError, with a hint or the usage."""

    def decorate(function: Callable[Options, Result]) -> Callable[Options, Result]:
        names = list(inspect.signature(function).parameters)

        @functools.wraps(function)
        def call(*args: Options.args, **options: Options.kwargs) -> Result:
            try:
                return function(*args, **options)
            except TypeError as error:
                if error.__traceback__ is not None and error.__traceback__.tb_next is not None:  # from inside the function
                    raise
                wrong = next((name for name in options if name not in names), None)
                hint = f"write {usage}" if wrong is None else _instead(wrong, names[1:])
                raise CallError(f"{error}: {hint}") from None

        return call

    return decorate


def warn(message: str) -> None:
    """A UserWarning at the line of the user's that called nbnet, through however many functions of nbnet."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def _instead(name: str, names: list[str]) -> str:
    hint = ARGUMENTS.get(name)
    others = re.findall(r"(\w+)=", hint) if hint and re.match(r"write \w+=", hint) else []
    if hint is None or (others and not set(others) & set(names)):  # this function has none of them
        return f"expected {', '.join(names)}" if names else "expected no arguments"
    return hint


@functools.cache
def _keywords(cls: type) -> list[str] | None:
    """The keywords of a constructor; None if it takes any."""
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]
    return None if any(each.kind is each.VAR_KEYWORD for each in parameters) else [each.name for each in parameters]
