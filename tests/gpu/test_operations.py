"""Everything public that computes runs on CUDA kernels and gives what the NumPy definitions give; what has no CUDA path says so."""

import numpy as np
import pytest
from cuda_machine import GPU, SIMULATED
from tolerances import assert_close

import nbnet as nb
from nbnet import augment, losses, metrics, optimizers

from . import operations

pytestmark = pytest.mark.skipif(not (SIMULATED or GPU), reason="there is no GPU: use --cuda=simulator or --cuda=executor")
F = nb.functional
DTYPE = "float32" if GPU else "float64"  # the simulator has NumPy's numbers, whose float32 rounds otherwise


@pytest.mark.parametrize("name", operations.CASES)
def test_cuda_gives_what_numpy_gives(name):
    kind, call = operations.CASES[name]
    expected, found = call("numpy", "float64"), call("cuda", DTYPE)
    assert len(expected) == len(found)
    for i, (a, b) in enumerate(zip(expected, found)):
        assert_close(np.asarray(b), np.asarray(a), kind, DTYPE, f"{name}, result {i}: ")


def named(group):
    return {name.removeprefix(group).partition(",")[0] for name in operations.CASES if name.startswith(group)}


def test_no_operation_is_left_out():
    types = {"Correction", "Stats", "Sums", "Taps"}
    called = {f"{name}_{way}" for name in (*operations.FUNCTIONS, "resample") for way in ("forward", "backward")}
    assert called | operations.IN_PARTS | {"moments"} == set(F.__all__) - types - {"batch_normalization"}  # a formula on NumPy's arrays
    assert named("loss ") == set(losses.LOSSES)
    assert named("metric ") == set(metrics.METRICS)
    assert named("optimizer ") == set(optimizers.OPTIMIZERS)
    assert named("transform ") - {"Normalize"} == set(augment.NAMES)


def model():
    return operations.trained("cuda", DTYPE, steps=0).model


def on_gpu(*shape):
    return nb.get_backend("cuda").place(np.ones(shape))


ONLY_ON_PROCESSORS = {
    "compile": (lambda: nb.compile(model()), "compile got a model on 'cuda', expected 'serial' or 'parallel': build it there"),
    "slices": (
        lambda: operations.trained("cuda", DTYPE, steps=1, slices=2),
        "slices= and comm= are for the CPU, got a model on backend 'cuda': use 'parallel', 'serial' or 'numpy'",
    ),
    "gradcheck": (
        lambda: nb.gradcheck(operations.trained("cuda", "float64", steps=0).model, np.ones((2, 4, 4, 2))),
        "gradcheck got a layer on 'cuda', expected 'serial', 'parallel' or 'numpy', where it can change one number: build it there",
    ),
    "batch_normalization": (
        lambda: F.batch_normalization(on_gpu(4, 2), np.zeros(2), np.ones(2), None, None, 1e-5),
        "batch_normalization got an array on the GPU, expected NumPy's: use batch_norm_forward with backend='cuda'",
    ),
    "arrays there in calls here": (
        lambda: F.relu_forward(on_gpu(4, 2), backend="serial"),
        "an array is on the GPU, but the backend is 'serial': use backend='cuda', or copy it: np.asarray(array)",
    ),
    "float16": (
        lambda: F.relu_forward(np.ones(3, np.float16), backend="cuda"),
        "x has dtype float16, expected float32 or float64; use x.astype('float32')",
    ),
}


@pytest.mark.parametrize("name", ONLY_ON_PROCESSORS)
def test_what_has_no_cuda_path_says_so(name):
    call, message = ONLY_ON_PROCESSORS[name]
    with pytest.raises(nb.NbnetError) as found:
        call()
    assert str(found.value) == message
