"""A few cases of tools/conformance.py, which needs onnx and torch."""

import collections
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "tools"))
from conformance import attempt

pytestmark = pytest.mark.filterwarnings("ignore")  # of the peers


@pytest.mark.parametrize(("suite", "needs", "operator"), [("onnx_nodes", "onnx", "Resize"), ("torch_ops", "torch", "nn.functional.conv1d")])
def test_cases_pass(suite, needs, operator):
    pytest.importorskip(needs)
    pytest.importorskip("expecttest")
    cases = pytest.importorskip(f"conform.{suite}").cases(expanded=False)
    calls = [call for name, _, call in cases if name == operator]
    assert len(calls) > 10
    outcomes = collections.Counter(attempt(call)[0] for call in calls)
    assert outcomes["failed"] == 0
    assert outcomes["passed"] > len(calls) / 2


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_padding_tables(mode):
    import numpy as np
    from conform import taps

    table = taps.padded(5, 2, 3, mode)
    assert np.arange(5)[table.index[:, 0]].tolist() == np.pad(np.arange(5), (2, 3), mode).tolist()


def test_a_wrong_result_fails(monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("expecttest")
    from conform import calls, torch_ops

    cases = [call for name, _, call in torch_ops.cases(expanded=False) if name == "nn.functional.conv1d"]
    right = calls.F.conv2d_backward

    def wrong(dy, saved):
        dx, dweight, dbias = right(dy, saved)
        return dx, dweight * 1.001, dbias

    monkeypatch.setattr(calls.F, "conv2d_backward", wrong)
    with pytest.raises(AssertionError, match="gradient of weight"):
        cases[0]()
