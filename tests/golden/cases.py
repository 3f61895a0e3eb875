"""Reads the golden data: what other frameworks computed, recorded by record.py (README.md lists the cases)."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


@dataclass
class Case:
    """One call of one framework: its options, the arrays in and out of each training step, and of one evaluation after them."""

    name: str  # "keras/renorm"
    options: dict  # "kind", "call", "dtype", "nbnet": the same in nbnet's terms
    params: dict = field(default_factory=dict)  # constant over the steps: gamma, beta, start_mean, start_var
    steps: list = field(default_factory=list)  # a dict a training step: x, dy, y, dx, dgamma, dbeta, moving_mean, moving_var, ...
    evaluation: dict = field(default_factory=dict)  # x, dy, y, dx, dgamma, dbeta; empty where a call knows no evaluation

    def __str__(self):
        return self.name


def cases(framework=None, kind=None):
    """Yield every Case, of one framework ("torch") and of one kind ("batch_norm") if asked."""
    for path in sorted(HERE.glob("*.npz")):
        if framework is not None and path.stem != framework:
            continue
        arrays, index = _load(path)
        for name, options in index["options"].items():
            if kind is None or options["kind"] == kind:
                yield _case(name, options, arrays)


def versions(framework):
    """The package versions that a file was recorded with."""
    return _load(HERE / f"{framework}.npz")[1]["versions"]


def _load(path):
    """The arrays by key, and the index, which is JSON: versions, options by case, and the keys whose array is the same as another's."""
    with np.load(path) as data:
        arrays = {key: data[key] for key in data.files}
    index = json.loads(arrays.pop("index").tobytes())
    return arrays | {key: arrays[first] for key, first in index["same"].items()}, index


def _case(name, options, arrays):
    """Keys are "<case>|<step>|<what>"; the step is a number, "all" (steps stacked on axis 0), "params" or "evaluation"."""
    case = Case(name, options, steps=[{} for _ in range(options["steps"])])
    for key, array in arrays.items():
        owner, _, rest = key.partition("|")
        if owner != name:
            continue
        step, what = rest.split("|")
        if step == "all":
            for i, one in enumerate(array):
                case.steps[i][what] = one
        elif step == "params":
            case.params[what] = array
        elif step == "evaluation":
            case.evaluation[what] = array
        else:
            case.steps[int(step)][what] = array
    return case
