"""Arrays as kernels take them: one kind only, since Numba compiles a kernel for each; and backends that cannot run."""

import os
import subprocess
import sys

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet import functional as F
from nbnet.errors import ArgumentError
from nbnet.kernels import OPERATIONS, functions, load
from nbnet.runtime.arrays import for_kernels


def read_only(array, folder):
    array = array.copy()
    array.flags.writeable = False
    return array


def mapped(array, folder):
    np.save(folder / "array.npy", array)
    return np.load(folder / "array.npy", mmap_mode="r")


def misaligned(array, folder):
    memory = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype)
    memory[:] = array.reshape(-1)
    return memory.reshape(array.shape)


KINDS = {"read-only": read_only, "memory-mapped": mapped, "misaligned": misaligned}
kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
def test_what_kernels_take(rng, tmp_path, kind):
    plain = rng.normal(size=(3, 4))
    assert for_kernels(plain) is plain
    array = KINDS[kind](plain, tmp_path)
    assert not array.flags.carray
    copy = for_kernels(array)
    assert type(copy) is np.ndarray
    assert copy.flags.carray
    assert not np.shares_memory(copy, array)
    assert_close(copy, plain, "exact")


def everything(x, w, gamma, dy, logits, labels):
    """Results of all kinds of calls: functional ones, layers, training."""
    results = []
    for forward, backward in (
        (lambda x: F.conv2d_forward(x, w, gamma, backend="serial"), F.conv2d_backward),
        (lambda x: F.batch_norm_forward(x, gamma[:3], gamma[:3], backend="serial"), F.batch_norm_backward),
        (lambda x: F.group_norm_forward(x, gamma[:3], gamma[:3], groups=1, backend="serial"), F.group_norm_backward),
        (lambda x: F.max_pool2d_forward(x, 1, backend="serial"), F.max_pool2d_backward),
        (lambda x: F.avg_pool2d_forward(x, 1, backend="serial"), F.avg_pool2d_backward),
        (lambda x: F.dropout_forward(x, 0.5, seed=1, backend="serial"), F.dropout_backward),
        (lambda x: F.dense_forward(x.reshape(-1, 3), w[0, 0], gamma, backend="serial"), F.dense_backward),
    ):
        y, saved = forward(x)
        results += [y, *np.atleast_1d(backward(dy.reshape(-1)[: y.size].reshape(y.shape), saved)[0])]
    for loss, target in ((nb.losses.softmax_cross_entropy, labels), (nb.losses.mean_squared_error, logits)):
        results.append(loss(logits, target, backend="serial").gradient)
    for layers in ([nb.Conv2D(4, 3), nb.BatchNorm(), nb.ReLU()], [nb.Residual([nb.Tanh()])], [nb.Flatten(), nb.Softmax()]):
        model = nb.Sequential([*layers])
        model.build(x.shape[1:], backend="serial", seed=1)
        y, tape = model.forward(x, train=True)
        results += [y, model.backward(dy.reshape(-1)[: y.size].reshape(y.shape), tape), model.predict(x)]
    model = nb.Sequential([nb.Conv2D(4, 3), nb.BatchNorm(), nb.Flatten(), nb.Dense(4)])
    model.build(x.shape[1:], backend="serial", seed=1)
    frozen = model.layers[1].params["gamma"]
    frozen.value, frozen.trainable = gamma, False
    trainer = nb.Trainer(model, optimizer=nb.SGD(0.1))
    for _ in range(3):
        trainer.train_batch(x, labels)
    trainer.fit((x, labels), epochs=1, batch_size=2)
    return [*results, *model.state().values(), model.predict(x)]


def compiled():
    return {
        f"{operation}.{name}": len(load(f"{operation}.{name}", "serial").overloads)
        for operation in OPERATIONS
        for name in functions(operation)
    }


@kinds
def test_no_kernel_is_compiled_for_another_kind_of_array(rng, tmp_path, kind):
    sizes = (5, 6, 7, 3), (1, 1, 3, 4), (4,), (5, 6, 7, 4), (5, 4)
    arrays = [rng.normal(size=size).astype(np.float32) for size in sizes] + [rng.integers(0, 4, 5)]
    expected, before = everything(*arrays), compiled()
    folders = [tmp_path / str(i) for i in range(len(arrays))]
    for folder in folders:
        folder.mkdir()
    others = [KINDS[kind](array, folder) for array, folder in zip(arrays, folders)]
    found = everything(*others)
    assert compiled() == before
    for one, other in zip(expected, found, strict=True):
        assert_close(one, other, "exact")
    for array, other in zip(arrays, others):
        assert_close(other, array, "exact")


@kinds
def test_outputs_are_written_by_kernels(rng, tmp_path, kind):
    """An output that a kernel cannot write to is an error, and nothing has changed."""
    x, w = rng.normal(size=(5, 3)), rng.normal(size=(3, 4))
    y, saved = F.dense_forward(x, w, backend="serial")
    wrong = "not aligned" if kind == "misaligned" else "read-only"
    with pytest.raises(ArgumentError, match=f"dweight is {wrong}, expected an array to write to"):
        F.dense_backward(y, saved, dweight=KINDS[kind](w, tmp_path))
    model = nb.Sequential([nb.Dense(2)])
    model.build((3,), backend="serial")
    model.layers[0].params["weight"].value = KINDS[kind](w[:, :2].astype(np.float32), tmp_path)
    before = {name: array.copy() for name, array in model.state().items()}
    trainer = nb.Trainer(model, loss="mean_squared_error", optimizer=nb.SGD(0.1))
    with pytest.raises(ArgumentError, match=f"the value of '0.dense.weight' is {wrong}: use np.array"):
        trainer.train_batch(x, y[:, :2])
    for name, array in model.state().items():
        assert_close(array, before[name], "exact")


WITHOUT_COMPILER = """
import numpy as np, nbnet as nb
for backend in ("serial", "parallel", "cuda"):
    try:
        nb.Sequential([nb.Dense(3)]).build((4,), backend=backend)
    except nb.errors.BackendError as error:
        print(error)
model = nb.Sequential([nb.Conv2D(2, 3), nb.BatchNorm(), nb.ReLU(), nb.MaxPool2D(2), nb.Flatten(), nb.Dropout(0.5), nb.Dense(3)])
model.build((4, 4, 1), backend="numpy")
trainer = nb.Trainer(model, loss="softmax_cross_entropy", optimizer=nb.SGD(0.1))
history = trainer.fit((np.ones((8, 4, 4, 1), np.float32), np.arange(8) % 3), epochs=1, batch_size=4)
print(np.isfinite(history["loss"]).all())
"""


def test_without_the_compiler(tmp_path):
    """With NUMBA_DISABLE_JIT=1, for debuggers, numpy is the backend that runs."""
    env = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    code = [sys.executable, "-c", WITHOUT_COMPILER]
    *errors, trained = subprocess.run(code, env=env, capture_output=True, text=True, check=True).stdout.splitlines()
    assert trained == "True"
    assert errors == [
        f"got backend '{backend}' with NUMBA_DISABLE_JIT=1, expected Numba's compiler: use backend='numpy', or unset the variable"
        for backend in ("serial", "parallel", "cuda")
    ]
    info = subprocess.run([sys.executable, "-m", "nbnet", "info"], env=env, capture_output=True, text=True, check=True)
    assert "kernel cache:      none: got backend 'serial' with NUMBA_DISABLE_JIT=1" in info.stdout
    train = [sys.executable, "-m", "nbnet", "train", "--out", str(tmp_path / "run")]
    failed = subprocess.run(train, env=env, capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stderr.count("\n")) == (2, 1)
    assert failed.stderr.startswith("nbnet: error: got backend 'parallel' with NUMBA_DISABLE_JIT=1")
