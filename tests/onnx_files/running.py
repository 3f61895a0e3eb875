"""Running ONNX files with onnxruntime, and comparing."""

import numpy as np


def nchw(x):
    return np.ascontiguousarray(np.moveaxis(x, -1, 1)) if x.ndim > 2 else x


def nhwc(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if x.ndim > 2 else x


def run(path, *xs):
    """What onnxruntime computes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {each.name: x for each, x in zip(session.get_inputs(), xs, strict=True)})


def outputs(model, *xs):
    y = model.forward(xs if len(xs) > 1 else xs[0])[0]
    return y if isinstance(y, tuple) else (y,)


def assert_agree(found, wanted, what=""):
    """Within 1e-5 of the largest number: what the project promises of ONNX files."""
    assert len(found) == len(wanted), what
    for a, b in zip(found, wanted):
        assert a.shape == b.shape, (what, a.shape, b.shape)
        error, largest = np.abs(a - b).max(), np.abs(b).max()
        assert error <= 1e-5 * largest, f"{what}: {error:.2e}, the largest number is {largest:.2e}"


def varied(model, rng):
    """Parameters and moving statistics that are not those of a new model."""
    for param in model.params.values():
        param.value[:] += 0.1 * rng.normal(size=param.value.shape).astype(param.value.dtype)
    for name, array in model.buffers.items():
        if name.endswith("moving_mean"):
            array[:] = rng.normal(size=array.shape)
        elif name.endswith("moving_var"):
            array[:] = rng.uniform(0.5, 2, array.shape)
    return model
