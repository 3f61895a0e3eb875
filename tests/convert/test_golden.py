"""Files that PyTorch and Keras wrote, without PyTorch and Keras: tests/golden/record_convert.py made them."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from convert.twins import GOLDEN, everything, of_keras, of_torch
from nbnet import storage

OUTPUTS = np.load(GOLDEN / "outputs.npz")


def test_a_file_of_pytorch():
    model = of_torch()
    pairs = nb.convert.from_torch(GOLDEN / "torch.safetensors", model)
    assert pairs == {
        "features.0": "0.conv2d",
        "features.1": "1.batchnorm",
        "features.4": "4.depthwiseconv2d",
        "features.5": "5.prelu",
        "features.6": "6.conv2d",
        "head.1": "8.dense",
        "head.2": "9.batchnorm",
        "head.4": "11.dense",
    }
    assert_close(model.predict(OUTPUTS["x"]), OUTPUTS["torch"], "golden")


def test_back_to_pytorch_has_the_same_bits():
    state, _ = storage.read(GOLDEN / "torch.safetensors")
    model = of_torch()
    nb.convert.from_torch(state, model)
    back = nb.convert.to_torch(model, state)
    assert list(back) == list(state)
    assert all((back[name].dtype, back[name].tobytes()) == (state[name].dtype, state[name].tobytes()) for name in state)
    names = {"0.weight", "1.running_var", "4.bias", "8.weight", "9.num_batches_tracked"}
    assert names < nb.convert.to_torch(model).keys()


@pytest.mark.parametrize("ending", ["keras", "weights.h5", "h5"])
def test_a_file_of_keras(ending):
    pytest.importorskip("h5py")
    model = of_keras()
    pairs = nb.convert.from_keras(GOLDEN / f"keras.{ending}", model)
    assert [*pairs.values()] == ["stem", "1.batchnorm", "2.separableconv2d", "4.convtranspose2d", "head"]
    assert_close(model.predict(OUTPUTS["x"]), OUTPUTS["keras"], "golden")


def test_files_of_keras_hold_the_same_bits():
    pytest.importorskip("h5py")
    models = [of_keras() for _ in range(3)]
    for model, ending in zip(models, ("keras", "weights.h5", "h5")):
        nb.convert.from_keras(GOLDEN / f"keras.{ending}", model)
    assert everything(models[0]) == everything(models[1]) == everything(models[2])


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_eps_and_decay_of_a_file(ending):
    pytest.importorskip("h5py")
    model = of_keras(eps=1e-5, decay=0.9)
    before = everything(model)
    path = GOLDEN / f"keras.{ending}"
    with pytest.raises(
        nb.errors.ArgumentError, match=r"has eps=0\.001, layer 1\.batchnorm eps=1e-05: build it with BatchNorm\(eps=0\.001\)"
    ):
        nb.convert.from_keras(path, model)
    assert everything(model) == before
    nb.convert.from_keras(path, model, norms="set")
    assert (model[1].eps, model[1].moving.eps, model[1].decay) == (1e-3, 1e-3, 0.99)
    assert "eps=0.001" in repr(model)
    assert_close(model.predict(OUTPUTS["x"]), OUTPUTS["keras"], "golden")


def test_no_framework_is_imported():
    import subprocess
    import sys

    code = f"""
import sys
import nbnet as nb
from convert.twins import of_torch
nb.convert.from_torch({str(GOLDEN / "torch.safetensors")!r}, of_torch(backend="numpy"))
print([name for name in ("torch", "keras", "tensorflow", "h5py") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=GOLDEN.parents[1], check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
