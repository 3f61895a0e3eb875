"""Every kernel, as its launcher launches it, is compiled to PTX by the real type checker; tests inspect the PTX."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cuda_machine import INSTALLED, SIMULATED

from nbnet.kernels import OPERATIONS, functions, load, optimizers
from nbnet.kernels.activations import SMOOTH, TABLE
from nbnet.kernels.loss import TABLE as LOSSES

pytestmark = pytest.mark.skipif(SIMULATED or not INSTALLED, reason="PTX is compiled with numba-cuda, and not in the simulator")
CAPABILITIES = [(7, 5), (10, 0)]  # the oldest and the newest; what the PTX holds is looked at for (9, 0)
WIDE = {"groupnorm": "its contract has statistics and xhat in float64", "array": "a sum of squares over whole networks is float64"}
FLOAT64 = re.compile(r"\b(add|sub|mul|fma|div|sqrt|neg|abs|min|max)\.(rn\.)?f64\b")
# float64 in kernels of float32 data: where partial statistics are merged, once for many elements
MERGES = {"_moments", "_weighted_moments", "_merge_moments", "_merge_sums"}
MERGES |= {"_prelu_backward", "_backward_reduce", "_weighted_backward_reduce", "_backward_reduce_max_pool"}
MERGES |= {f"_backward_reduce_{name}" for name in SMOOTH}
EPILOGUES = {"convolution"}  # only after the last barrier
# kernels that process single elements, since their rows may have any length
SCALARS = {"_softmax_forward", "_softmax_backward", "_log_softmax_forward", "_log_softmax_backward"}
SCALARS |= {f"_{name}" for name in functions("loss")}
SCALARS |= {"_add_parts", "_add_gradients", "_rotate"}
SCALARS |= {"_max_forward", "_max_backward", "_avg_forward", "_avg_backward", "_gather", "_merge_moments", "_merge_sums", "_total", "_swap"}
SCALARS |= {"_backward_outside", "_first_of_each", "_move_columns", "_multiply_rows", "_multiply_sum"}
SCALARS |= {"_depthwise", "_depthwise_transposed", "_depthwise_products", "_merge_products"}
SCALARS |= {"_augment", "_mix"}
MERGES |= {"_depthwise_products", "_merge_products"}
MERGES |= {"_mix"}  # whose products are exact in float64, so that all backends mix to the same bits


IN_32_BITS = {"convolution", "correlation", "_gather", "_gather4", "_max_backward_2x2"}  # and those of pooling
IN_32_BITS |= {f"_{kind}_{way}{width}" for kind in ("max", "avg") for way in ("forward", "backward") for width in ("", "4")}


def arguments(operation, name, dtype):
    """Arguments of one call, with arrays as (shape, dtype); several calls, if it takes several shapes to launch every kernel."""
    T, D = np.dtype(dtype), np.dtype(np.float64)

    def a(*shape, dtype=T):
        return shape, dtype

    m, v = a(300, 64), a(64)
    wide, narrow, pooled, image = a(2, 9, 9, 16), a(2, 9, 9, 3), (3, 3, 2, 2, 1, 1), (1, 1, 1, 1, 1, 1)
    if operation == "batchnorm":
        sums = a(64, dtype=D), a(64, dtype=D)
        weights = [None, a(300, 1), m]
        image_x, image_y = a(4, 9, 8, 64), a(4, 4, 4, 64)
        row = TABLE.get(name.removeprefix("apply_").removeprefix("backward_reduce_"))
        if row:
            options = (0.1,) * len(row.options)
            return [(m, v, v, v, *options, m) if name.startswith("apply_") else (m, m, m, v, v, v, *options, None, m, *sums)]
        return {
            "apply_max_pool": [(image_x, v, v, v, 0.0, image_y)],
            "backward_reduce_max_pool": [(image_y, image_x, v, v, v, 0.0, None, *sums)],
            "backward_apply_max_pool": [(image_y, image_x, v, v, v, 0.0, v, v, v, image_x)],
            "moments": [(m, w, None, *sums) for w in weights],
            "apply": [(m, v, v, v, 0.0, m)],
            "backward_reduce": [(m, m, w, v, v, v, 0.0, None, *sums) for w in weights],
            "backward_apply": [(m, m, w, v, v, v, 0.0, v, v, v, m) for w in weights],
        }[name]
    if operation == "groupnorm":
        x, statistics = a(4, 5, 12), a(4, 3, dtype=D)
        forward = (x, 3, a(12), a(12), 1e-5, True, None, statistics, statistics, x)
        return {"forward": [forward], "backward": [(x, x, 3, a(12), statistics, statistics, True, None, a(12), a(12), x)]}[name]
    if operation == "dropout":
        random = np.array([3, 1, 2], np.uint64), 1 << 31
        return {"apply": [(a(1000), *random, 1.5, 0.0, 0.0, a(1000))], "relu_backward": [(a(1000), a(1000), 1.5, a(1000))]}[name]
    if operation == "conv2d":
        calls = []
        for outputs in (10, 32, 64):
            for side, groups in ((4, 1), (64, 1), (4, 2)):
                x, y, w, b = a(8, side, side, 16), a(8, side, side, outputs), a(3, 3, 16 // groups, outputs), a(outputs)
                calls.append(
                    {
                        "forward": (x, w, b, 0.0, *image, None, False, None, y, None, *[a(outputs, dtype=D)] * 2),
                        "backward_data": (y, w, *image, None, None, None, x),
                    }.get(name)
                )
                calls[-1] = calls[-1] or (x, y, *image, None, None, w, b)
        return calls
    if operation == "depthwise":
        w = a(3, 3, 16)
        forward = wide, w, a(16), 0.0, *image, wide, None, a(16, dtype=D), a(16, dtype=D)
        backward = {"backward_data": (wide, w, *image, wide), "backward_weights": (wide, wide, *image, None, w, a(16))}
        return [({"forward": forward} | backward)[name]]
    if operation == "dense":
        x, y, w, b = a(64, 100), a(64, 10), a(100, 10), a(10)
        plain, with_moments = (x, w, b, 0.0, y, None, None, None), (x, w, b, 1.0, y, None, *[a(10, dtype=D)] * 2)
        through_norm = (x, y, y, w, *[a(10, dtype=D)], *[b] * 5, None, None, w, b)
        backward = {"backward_data": [(y, w, None, x)], "backward_weights": [(x, y, w, b)], "backward_weights_norm": [through_norm]}
        return ({"forward": [plain, with_moments]} | backward)[name]
    if operation == "pool":
        calls = []
        for x in (wide, narrow):
            y = a(2, 5, 5, x[0][3])
            geometry = pooled if "max" in name else (*pooled, 10, 10)
            calls.append((x, *geometry, y) if name.endswith("forward") else (y, *([x] if "max" in name else []), *geometry, x))
        if name == "max_backward":
            calls.append((a(2, 4, 4, 16), wide, 2, 2, 2, 2, 0, 0, wide))
        return calls
    if operation == "resample":
        index, weight = a(9, 2, dtype=np.dtype(np.int64)), a(9, 2, dtype=D)
        return [(x, index, weight, index, weight, x) for x in (wide, narrow)]
    if operation == "augment":
        whole, bytes_ = np.dtype(np.int64), a(9, 8, 7, 3, dtype=np.dtype(np.uint8))
        y, rows, boxes = a(4, 8, 7, 3), a(4, dtype=whole), a(2, 4, 4, dtype=whole)
        if name == "mix":
            return [(y, a(4, dtype=D), a(4, 4, dtype=whole), y)]
        rest = 2, a(4, 3, 4), a(4096), np.array([3, 1, 2], np.uint64), a(3), a(3), 255.0, boxes, y
        return [(x, rows, rows, a(2, 4, 15, dtype=whole), a(4, 6, dtype=whole), *rest) for x in (bytes_, a(9, 8, 7, 3))]
    if operation == "activation":
        if "prelu" in name:
            return [(m, w, m) if name.endswith("forward") else (m, m, w, None, m, w) for w in (v, a(1))]
        x, row = m if "softmax" in name else a(1000), TABLE.get(name.rpartition("_")[0])
        options = (0.1,) * len(row.options) if row else ()
        return [(x, *options, x) if name.endswith("forward") else (x, x, *options, x)]
    if operation == "loss":
        rows = a(300, dtype=D)
        if name in LOSSES:
            return [(m, m, a(300, 1), *(0.1,) * len(LOSSES[name].options), 0.1, 0.1, rows, m)]
        targets = (m, a(300)) if name == "soft_cross_entropy" else (a(300, dtype=np.dtype(np.int64)),)
        return [(m, *targets, 0.1, rows, a(300, dtype=np.dtype(np.uint8)), m)]
    if operation == "optimizer":
        row = optimizers.TABLE[name]
        options = [True if option in optimizers.TRUTHS else 0.1 for option in row.options]
        return [(*[a(1000)] * (2 + len(row.slots)), *options)]
    calls = {"add": (m, m, m), "multiply": (m, m, m), "scale": (m, 0.5, m), "squares": (m, a(1, dtype=D)), "swap": (wide, wide)}
    examples, rows = a(4, 5, 12), a(4, 12)
    calls |= {"multiply_rows": (examples, rows, examples), "multiply_sum": (examples, examples, rows)}
    return [(calls | {"copy_columns": (m, 3, m, 5, 7)})[name]]


CASES = [(operation, name) for operation in OPERATIONS for name in functions(operation)]
cases = pytest.mark.parametrize(("operation", "name"), CASES, ids=[".".join(case) for case in CASES])


@pytest.fixture
def launches(monkeypatch):
    """launches(operation, name, dtype) -> {(kernel, signature)}, everything that the launcher would launch."""
    from numba.cuda import dispatcher, types

    from nbnet.kernels.gpu import device, gate, launch
    from nbnet.kernels.gpu.numba_private import types_of

    class Device:
        compute_capability = (9, 0)

    class Pool:
        def empty(self, shape, dtype):
            return device.DeviceArray(None, tuple(shape), np.dtype(dtype), None)

    found, run = set(), launch.run

    def record(kernel, grid, block, *args):
        found.add((kernel, types.void(*types_of(args))))

    monkeypatch.setattr(dispatcher, "get_current_device", lambda: Device)
    monkeypatch.setattr(device, "pool", Pool)
    monkeypatch.setattr(device, "to_device", lambda array: Pool().empty(array.shape, array.dtype))
    monkeypatch.setattr(gate, "_always_open", lambda: Pool().empty((1,), np.int32))
    for operation in OPERATIONS:
        importlib.import_module(f"nbnet.kernels.{operation}.cuda")
    for name, module in list(sys.modules.items()):
        if name.startswith("nbnet.kernels.") and getattr(module, "run", None) is run:
            monkeypatch.setattr(module, "run", record)

    def launches(operation, name, dtype):
        found.clear()
        for call in arguments(operation, name, dtype):
            arrays = [isinstance(arg, tuple) and isinstance(arg[-1], np.dtype) for arg in call]
            args = [device.DeviceArray(None, *arg, None) if is_array else arg for arg, is_array in zip(call, arrays, strict=True)]
            load(f"{operation}.{name}", "cuda")(*args)
        assert found
        return set(found)

    return launches


def ptx_of(kernel, signature, capability):
    from numba import cuda

    bounds = kernel.targetoptions.get("launch_bounds")
    options = {"launch_bounds": bounds} if bounds else {}
    return cuda.compile(kernel.py_func, signature, device=False, abi="numba", cc=capability, output="ptx", **options)[0]


def supported(capability):
    from numba.cuda.cudadrv import nvrtc

    return capability in nvrtc.get_supported_ccs()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@cases
def test_what_the_ptx_holds(launches, operation, name, dtype):
    for kernel, signature in launches(operation, name, dtype):
        kernel_name, ptx = kernel.py_func.__name__, ptx_of(kernel, signature, (9, 0))
        assert ".entry" in ptx
        assert ".local" not in ptx, f"{kernel_name} keeps an array in local memory"
        if kernel_name not in SCALARS and not (operation == "groupnorm" or kernel_name == "_fill"):
            vector = r"ld\.(global|shared)\.v4\.f32" if dtype == "float32" else r"ld\.(global|shared)\.v2\.f64"
            assert re.search(vector, ptx), f"{kernel_name} has no 128-bit load"
        if kernel_name in IN_32_BITS:
            assert not re.search(r"\b(div|rem)\.[su]64\b", ptx), f"{kernel_name} divides in 64 bits"
        if dtype == "float32" and operation not in WIDE and kernel_name not in MERGES:
            hot = ptx.rpartition("bar.sync")[0] if kernel_name in EPILOGUES else ptx
            assert not FLOAT64.search(hot), f"{kernel_name} computes in float64: {FLOAT64.search(hot)}"


@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_kernel_compiles(launches, operation, capability):
    if not supported(capability):
        pytest.skip(f"the toolkit does not know compute capability {capability}")
    for name in functions(operation):
        for kernel, signature in launches(operation, name, "float32"):
            assert f".target sm_{capability[0]}{capability[1]}" in ptx_of(kernel, signature, capability)


def test_a_stray_float_constant_is_seen(launches):
    """The check above can fail: 0.1 is a float64, and promotes."""
    from numba import cuda
    from numba.cuda import types

    @cuda.jit
    def scale(x):
        x[0] = x[0] * 0.1

    assert FLOAT64.search(ptx_of(scale, types.void(types.Array(types.float32, 1, "C")), (9, 0)))


def assembler():
    import nvidia

    return next((path for root in nvidia.__path__ for path in Path(root).rglob("ptxas")), None)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_registers_do_not_spill(launches, operation, dtype, tmp_path):
    """From the assembler, which is part of the toolkit."""
    ptxas = assembler()
    if ptxas is None:
        pytest.skip("the toolkit has no ptxas")
    for name in functions(operation):
        for i, (kernel, signature) in enumerate(launches(operation, name, dtype)):
            source = tmp_path / f"{i}.ptx"
            source.write_text(ptx_of(kernel, signature, (9, 0)), encoding="utf-8")
            done = subprocess.run([ptxas, "-v", "-arch=sm_90", source, "-o", tmp_path / "out"], capture_output=True, text=True, check=True)
            spills = re.findall(r"(\d+) bytes spill", done.stderr)
            assert set(spills) == {"0"}, f"{kernel.py_func.__name__}: {done.stderr}"


def test_formulas_of_channels_compile(launches):
    """The arithmetic on C numbers of batch normalisation, which Backend.channelwise compiles from Python functions."""
    from numba.cuda import types

    from nbnet.functional import batchnorm_coefficients as channel_numbers
    from nbnet.kernels.gpu.compile import channelwise

    wide, narrow = types.Array(types.float64, 1, "C"), types.Array(types.float32, 1, "C")
    arrays = (True, True, False, True, True, False)
    kernel = channelwise(channel_numbers.affine_of(np.float32), 5, arrays, True)
    outputs = (wide, wide, narrow, narrow, narrow)
    signature = types.void(types.int64, *outputs, wide, wide, types.float64, narrow, narrow, types.float64)
    assert "sqrt" in ptx_of(kernel, signature, (9, 0)) or "pow" in ptx_of(kernel, signature, (9, 0))
    arrays = (True,) * 6 + (False, False, True, False, False)
    kernel = channelwise(channel_numbers.batch_statistics, 5, arrays, True)
    numbers = (wide, wide, narrow, wide, wide, wide, types.float64, types.float64, narrow, types.float64, types.float64)
    assert ".f32" in ptx_of(kernel, types.void(types.int64, *[narrow] * 5, *numbers), (9, 0))


@pytest.mark.parametrize(
    "case", [("activation", "softmax_forward"), ("loss", "softmax_cross_entropy"), ("loss", "soft_cross_entropy")], ids=".".join
)
def test_softmax_writes_each_result_once(launches, case):
    """Exponentials are computed again rather than written and read back. The one loop that writes is unrolled four times, with a rest."""
    for kernel, signature in launches(*case, "float32"):
        ptx = ptx_of(kernel, signature, (9, 0))
        loads, stores = (len(re.findall(rf"\b{what}\.global\S*\.f32\b", ptx)) for what in ("ld", "st"))
        assert stores <= 5, f"{kernel.py_func.__name__}: {stores} stores, {loads} loads"
