"""The public calls that have arguments with defaults, and the options of the commands, beside tests/described/."""

import argparse
import inspect

import pytest
from descriptions import check

import nbnet as nb
from nbnet import cli
from nbnet.layers.batchnorm.presets import PRESETS


def test_defaults(request):
    lines = []
    for module in (
        nb,
        nb.augment,
        nb.functional,
        nb.losses,
        nb.metrics,
        nb.initializers,
        nb.regularizers,
        nb.schedules,
        nb.preprocessing,
        nb.datasets,
        nb.models,
        nb.convert,
        nb.onnx,
    ):
        lines.append(f"--- {module.__name__}")
        names = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
        for name in sorted(names):
            lines += _lines(name, getattr(module, name))
    check(request.config, "api", lines)


def test_defaults_of_the_estimators(request):
    pytest.importorskip("sklearn")
    from nbnet import sklearn as estimators

    check(request.config, "sklearn", [line for name in estimators.__all__ for line in _lines(name, getattr(estimators, name))])


def _lines(name, thing):
    """Of a function, or of the constructor and the methods of a class."""
    if not getattr(thing, "__module__", "").startswith("nbnet"):
        return []
    if inspect.isclass(thing):
        methods = {key: value for base in reversed(thing.__mro__) for key, value in vars(base).items() if inspect.isfunction(value)}
        own = [key for key in methods if key[0] != "_" and methods[key].__module__ == thing.__module__]
        return [line for key in ("__init__", *own) for line in _call(f"{name}.{key}", getattr(thing, key))]
    return _call(name, thing) if inspect.isfunction(thing) else []


def _call(name, function):
    parameters = [each.replace(annotation=each.empty) for each in inspect.signature(function).parameters.values()]
    has_defaults = any(each.default is not each.empty for each in parameters)
    return [f"{name}({', '.join(map(str, parameters))})".replace(".__init__", "")] if has_defaults else []


def test_options_of_the_commands(request):
    lines = []
    for name, parser in cli.parsers()[1].items():
        lines.append(f"--- nbnet {name}: {parser.description}")
        lines += parser.epilog.splitlines()
        for action in parser._actions:
            if not isinstance(action, argparse._HelpAction):
                kind = getattr(action.type, "__name__", None)
                lines.append(f"{action.option_strings} {action.metavar} {action.nargs} {action.default} {kind} {action.help}")
    check(request.config, "options", lines)


def test_tables_of_options(request):
    """The models, the dialects of batch norm, what nbnet train does without options."""
    lines = []
    for name in nb.models.MODELS:
        lines += [f"--- {name}", *repr(nb.models.get(name)(10)).splitlines()]
    lines += [f"--- {name}: {nb.BatchNorm.preset(name)}" for name in PRESETS]
    lines += [f"--- nbnet train: {cli.settings.COMMON}", *(f"  {name}: {options}" for name, options in cli.settings.DEFAULTS.items())]
    check(request.config, "tables", [*lines, f"weight decay of adamw: {cli.settings.ADAMW_DECAY}"])
