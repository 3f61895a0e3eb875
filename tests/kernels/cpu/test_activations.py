"""tools/check_activations.py on a sample: activations and their derivatives are precise, and the tool sees what is not."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from tolerances import ULP

TOOL = Path(__file__).parents[3] / "tools" / "check_activations.py"


def load_tool():
    spec = importlib.util.spec_from_file_location("check_activations", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tool = load_tool()
settings = pytest.mark.parametrize(("name", "options"), tool.SETTINGS, ids=str)


@pytest.fixture(autouse=True)
def prepared(monkeypatch):
    monkeypatch.setattr(tool.reference, "_erfc", tool.erfc)


@settings
def test_float32(name, options):
    """Every 20011th number."""
    worst = tool.measure(name, options, 20011, False)
    assert worst[0].error <= ULP["activations"]
    assert worst[2].error <= ULP["activations"]


@settings
def test_float64(name, options, monkeypatch):
    monkeypatch.setattr(tool.reference, "_normal", tool.normal)
    worst = tool.measure(name, options, 100, True)
    assert worst[0].error <= ULP["activations"]
    assert worst[2].error <= ULP["activations"]


def test_tails():
    """Where y is tiny it still has digits: 1 - erf has none from -6 on."""
    x = np.array([-3.2, -5, -8, -12], np.float32)
    for name, of_y in (("gelu", 8), ("gelu_tanh", 64), ("silu", 4), ("mish", 4)):
        error, tail, _ = tool.errors(name, (), x)
        assert tail.any()
        assert error.max() <= of_y


def test_the_tool_sees_errors():
    y = np.array([1, 1 + 2.0**-20, 0, np.nan], np.float32)
    assert tool.units(y, np.array([1, 1, 2.0**-149, 1]), np.finfo(np.float32).tiny).tolist() == [0, 8, 1, np.inf]
