"""Networks of full size, exported by the PyTorch that is installed. The same, tiny, are golden files: see test_load.py."""

import warnings

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import nbnet as nb

from .running import assert_agree, nhwc, outputs


@pytest.mark.parametrize("name", ["lenet", "resnet18", "mobilenetv2"])
def test_networks_of_full_size(name, tmp_path):
    from golden import torch_networks

    network, x, ys = torch_networks.trained(*torch_networks.FULL[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter is deprecated
        torch_networks.exported(network, x, tmp_path / "a.onnx")
    model = nb.onnx.load(tmp_path / "a.onnx", backend="numpy")
    assert_agree(outputs(model, nhwc(x.numpy())), [y.numpy() for y in ys])
