"""How the demonstration of convergence is timed beside PyTorch, with a made-up torch and clock; see test_torch_twin.py for the real one."""

import importlib
from types import SimpleNamespace

import numba
import numpy as np
import pytest

from nbnet.demos import convergence, torch_twin


class Torch:
    """Counts threads."""

    __version__ = "2.0"

    def __init__(self):
        self.threads, self.set = 7, []

    def get_num_threads(self):
        return self.threads

    def set_num_threads(self, count):
        self.threads = count
        self.set.append(count)


@pytest.fixture
def torch(monkeypatch):
    made = Torch()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(torch_twin, "importlib", SimpleNamespace(util=importlib.util, import_module=lambda name: made))
    return made


def test_all_take_turns(torch, monkeypatch):
    calls, now = [], [0.0]
    costs = {"nbnet without": 1.0, "nbnet with": 2.0, "torch without": 4.0, "torch with": 8.0}

    def stepper(name):
        def step():
            calls.append(name)
            now[0] += costs[name] * (100 if len(calls) <= 12 else 1)  # the first turn compiles
            return 0.0

        return step

    x, y = np.zeros((5, 3)), np.zeros((5, 2))

    def theirs(module, batch_norm, *options):
        assert module is torch
        assert options == (x, y, 6, 0.5)
        return stepper(f"torch {'with' if batch_norm else 'without'}")

    monkeypatch.setattr(torch_twin, "_torch_stepper", theirs)
    monkeypatch.setattr(torch_twin, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    ours = {key: stepper(f"nbnet {key}") for key in ("without", "with")}
    found = torch_twin.measure(ours, x, y, 6, 0.5, "serial", rounds=2, block=3)
    assert calls == [name for name in costs for _ in range(3)] * 3
    assert (found["unit"], found["pytorch"], found["threads"]) == ("ms a step", "2.0", 1)
    assert {name: each["seeds"] for name, each in found.items() if isinstance(each, dict)} == {
        "nbnet_without": [1e3, 1e3],
        "nbnet_with": [2e3, 2e3],
        "pytorch_without": [4e3, 4e3],
        "pytorch_with": [8e3, 8e3],
    }
    assert torch.set == [1, 7]
    found = torch_twin.measure(ours, x, y, 6, 0.5, "parallel", rounds=1, block=1)
    assert found["threads"] == numba.get_num_threads() == torch.set[2]


def test_what_is_timed(torch, monkeypatch):
    """Built networks with and without batch norm on the first seed's data."""
    given = []
    monkeypatch.setattr(torch_twin, "measure", lambda *arguments, **options: given.extend([arguments, options]) or "times")
    assert convergence.beside_pytorch("serial", rounds=1) == "times"
    (ours, x, y, units, lr, backend), options = given
    data = convergence.make_data(0)
    assert [np.array_equal(a, b) for a, b in zip((x, y), data)] == [True, True]
    assert (units, lr, backend, options) == (300, 1e-3, "serial", {"rounds": 1})
    losses = {key: [step() for _ in range(2)] for key, step in ours.items()}
    assert list(losses) == ["without", "with"]
    assert losses["without"][0] != losses["with"][0]
    assert all(last < first for first, last in losses.values())
