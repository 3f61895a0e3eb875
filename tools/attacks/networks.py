"""Random networks of all layers: every way to run one, and every copy of one, gives what the others give.

NumPy, serial and unfused runs agree within rounding; serial and parallel, replayed and plain steps have the same bits; gradients are those
of differences; copies, files and the code of `repr` make the same network.
"""

import copy
import pickle

import numba
import numpy as np

import nbnet as nb
from nbnet.errors import ArgumentError, GradientError, ShapeError
from nbnet.functional.activations import NAMED

STEPS = 1e-5, 1e-6, 1e-4  # of differences: one that crosses a kink is taken again


def attack(rng, folder):
    while True:
        yield failure(int(rng.integers(1 << 30)), folder)


def failure(seed, folder):
    rng = np.random.default_rng(seed)
    code, shape = network(rng)
    try:
        return check(code, shape, rng, folder)
    except Exception as error:
        return f"network {seed}: {type(error).__name__}: {' '.join(str(error).split())}; {code} for {shape}"


def network(rng):
    """Code of a network, and the shape of its inputs."""
    shape = start = _of(rng, [(5, 4, 3), (4, 6, 2), (6, 6, 4), (7, 3), (5, 4), (6,), (4,)])
    parts = []
    for _ in range(int(rng.integers(1, 6))):
        part, shape = drawn(rng, shape)
        parts.append(part)
    if rng.random() < 0.2:
        parts.append(f"nb.Parallel([[{drawn(rng, shape)[0]}], [{drawn(rng, shape)[0]}]])")
    return f"nb.Sequential([{', '.join(parts)}])", start


def drawn(rng, shape, depth=0):
    """Code of a layer or a few that fit inputs of this shape, and the shape of the outputs."""
    while True:
        kinds = [*[_row] * 3, *[_product] * 3, *[_window] * (2 * (len(shape) > 1)), *[_branch] * (2 * (depth < 2))]
        part = _of(rng, kinds)(rng, shape, depth)
        try:
            out = made(f"nb.Sequential([{part}])").build(shape, backend="numpy")
        except (ShapeError, ArgumentError):
            continue
        if np.prod(out) <= 400:
            return part, out


def _of(rng, values):
    return values[int(rng.integers(len(values)))]


def _name(rng):
    return repr(_of(rng, [None, None, *sorted(NAMED)]))


def _sizes(rng, rank, most):
    sizes = tuple(int(n) for n in rng.integers(1, most + 1, rank))
    return sizes[0] if rank == 1 else _of(rng, [sizes, sizes[0]])


def _padding(rng, rank):
    one = tuple(int(n) for n in rng.integers(0, 3, 2))
    return repr(_of(rng, ["same", "valid", 1, one, *([(one, one[::-1])] if rank == 2 else [])]))


def _row(rng, shape, depth):
    """An activation, a norm, or another shape."""
    axes, flat = tuple(range(-int(rng.integers(1, len(shape) + 1)), 0)), len(shape) == 1
    order = tuple(int(axis) + 1 for axis in rng.permutation(len(shape)))
    activations = ["PReLU()", "PReLU(True, -0.3)", "LeakyReLU(0.2)", "GELU('tanh')", "Softplus(2, 3)", "Dropout(0.3)", "Identity()"]
    activations += [f"{layer.__name__}()" for layer in nb.layers.activations.Elementwise.__subclasses__()]
    activations += ["Softmax()", "LogSoftmax()"] if flat else ["Dropout(0.3, spatial=True)"]
    norms = [f"BatchNorm(activation={_name(rng)})"] * 4 + ["BatchNorm(virtual_batch_size=2)", "BatchNorm(scale=False)", "GroupNorm(2)"]
    norms += [f"LayerNorm(axes={axes})", f"RMSNorm(axes={axes})", "InstanceNorm()", "LayerNorm(center=False)"]
    shapes = [f"Permute({order})", "Flatten()", f"Reshape(({shape[-1]}, -1))", "Reshape((2, 2, -1))"]
    return f"nb.{_of(rng, _of(rng, [activations, norms, shapes]))}"


def _product(rng, shape, depth):
    rank, filters, groups = len(shape) - 1, int(rng.integers(1, 7)), int(rng.choice([1, 1, 2, 3]))
    size, stride, dilation = (_sizes(rng, rank or 1, most) for most in (3, 2, 2))
    plain = f"stride={stride}, padding={_padding(rng, rank)}, use_bias={rng.random() < 0.5}, dilation={dilation}"
    own = f"{plain}, padding_mode={_of(rng, ['zeros', 'zeros', 'edge', 'reflect'])!r}, activation={_name(rng)}"
    code = [f"Dense({filters}, use_bias={rng.random() < 0.5}, activation={_name(rng)})"]
    if rank:
        code = [f"Conv{rank}D({filters}, {size}, {own}, groups={_of(rng, [groups, shape[-1]])})"] * 2
        code += [f"ConvTranspose{rank}D({filters}, {size}, {plain}, groups={groups})"]
    if rank == 1:
        code.append(f"Conv1D({filters}, {size}, padding='causal', dilation={dilation}, activation={_name(rng)})")
    if rank == 2:
        code += [f"DepthwiseConv2D({size}, {own}, multiplier={groups})", f"SeparableConv2D({filters}, {size}, {plain})"]
    norm = _of(rng, ["", "", ", nb.BatchNorm()", ", nb.BatchNorm(activation='gelu')"])
    last = _of(rng, ["", "", ", nb.MaxPool2D(2)", ", nb.Dropout(0.4)"])
    return f"nb.{_of(rng, code)}{norm}{_of(rng, ['', '', ', nb.ReLU()', ', nb.SiLU()'])}{last}"


def _window(rng, shape, depth):
    rank, one = len(shape) - 1, tuple(int(n) for n in rng.integers(0, 3, 2))
    options = f"{_sizes(rng, rank, 3)}, {_sizes(rng, rank, 3)}, padding={_padding(rng, rank)}, ceil_mode={rng.random() < 0.5}"
    code = [f"MaxPool{rank}D({options})", f"AvgPool{rank}D({options}, count_include_pad={rng.random() < 0.5})"] * 2
    code += [f"Global{kind}Pool{rank}D(keepdims={rng.random() < 0.5})" for kind in ("Max", "Avg")]
    if rank == 2:
        code += [f"AdaptiveAvgPool2D({_sizes(rng, 2, 5)})", f"UpSample2D(2, {_of(rng, ['nearest', 'bilinear'])!r})", f"ZeroPad2D({one})"]
        code += [f"Pad2D(({one}, {one[::-1]}), {_of(rng, ['zeros', 'edge', 'reflect'])!r})", f"Crop2D(({one}, {one[::-1]}))"]
    return f"nb.{_of(rng, code)}"


def _branch(rng, shape, depth):
    inner, out = drawn(rng, shape, depth + 1)
    pair = f"[[{inner}], [{inner}]]"
    code = [f"Add({pair})", f"Multiply({pair})", f"Concat({pair})", f"Concat([[], [nb.Identity()], [{_row(rng, shape, depth)}]])"]
    code += [f"Sequential([nb.Parallel({pair}), nb.{_of(rng, ['Add', 'Concat', 'Multiply'])}()])"]
    code += [f"Add([(a := nb.Sequential([{inner}])), a])", f"Multiply([[nb.Tanh(), (a := nb.Sequential([{inner}]))], a])"]
    code += [f"Residual([{inner}])", f"Residual([{inner}], nb.Tanh())"] if out == shape else []
    code += [f"Multiply([[], [nb.GlobalAvgPool2D(), nb.Dense({shape[-1]}, activation='sigmoid')]])"] if len(shape) == 3 else []
    return f"nb.{_of(rng, code)}"


def made(code):
    return eval(code, {"nb": nb})


def outputs(y):
    return y if isinstance(y, tuple) else (y,)


def built(code, shape, backend="serial", dtype="float64", fuse=True):
    model, rng = made(code), np.random.default_rng(2)
    model.build(shape, backend=backend, dtype=dtype, seed=1, fuse=fuse)
    for param in model.params.values():  # a bias that is 0 would put padding on the kink of ReLU
        param.value[:] += (0.1 * rng.normal(size=param.value.shape)).astype(dtype)
    return model


def check(code, shape, rng, folder):
    x, seed = rng.normal(size=(4, *shape)), int(rng.integers(99))
    if repr(made(repr(made(code)))) != repr(made(code)):
        raise AssertionError("the code of repr makes another network")
    for dtype in ("float32", "float64"):
        expected = run(built(code, shape, dtype=dtype), x, seed)
        numba.set_num_threads(int(rng.integers(1, min(4, numba.config.NUMBA_NUM_THREADS) + 1)))
        same(run(built(code, shape, "parallel", dtype), x, seed), expected, f"{dtype}, parallel")
    close(run(built(code, shape, "numpy"), x, seed), expected, "numpy", 1e-8)
    close(run(built(code, shape, fuse=False), x, seed), expected, "not fused", 1e-8)
    check_training(code, shape, x.astype(np.float32), folder)
    if all(error := _difference(code, x, step) for step in STEPS):
        raise error


def run(model, x, seed):
    """What a training pass and a prediction give, and all they change."""
    x, rng = x.astype(model.dtype), np.random.default_rng(seed)
    y, tape = model.forward(x, train=True)
    dy = tuple([rng.normal(size=part.shape).astype(model.dtype) for part in outputs(y)])
    found = [part.copy() for part in outputs(y)]
    dx = model.backward(dy if isinstance(y, tuple) else dy[0], tape)
    found += [dx, *(param.grad for param in model.params.values()), *model.buffers.values()]
    return [np.array(array) for array in [*found, *outputs(model.predict(x))]]


def same(found, expected, what):
    if [(a.shape, a.dtype, a.tobytes()) for a in found] != [(b.shape, b.dtype, b.tobytes()) for b in expected]:
        raise AssertionError(f"{what}: other bits")


def close(found, expected, what, limit):
    """limit: of differences, relative to the largest number of an array, or to a thousandth of the largest of all."""
    floor = 1e-3 * max(float(np.abs(b).max()) for b in expected if b.dtype.kind == "f")
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        if not np.abs(a.astype(float) - b).max() <= limit * max(float(np.abs(b).max()), floor):
            raise AssertionError(f"{what}: array {i} differs by {np.abs(a.astype(float) - b).max():.2g} of {np.abs(b).max():.2g}")


def check_training(code, shape, x, folder):
    """A few steps with and without replay; then what copies, a file and folding make of the model."""
    models = [built(code, shape, dtype="float32") for _ in range(2)]
    y = models[0].predict(x)
    target = tuple(np.zeros_like(part) for part in y) if isinstance(y, tuple) else np.zeros_like(y)
    loss = ["mean_squared_error"] * len(y) if isinstance(y, tuple) else "mean_squared_error"
    for model, replay in zip(models, (True, False)):
        trainer = nb.Trainer(model, loss=loss, optimizer=nb.SGD(1e-3), clip_norm=1.0, replay=replay)
        for _ in range(4):
            trainer.train_batch(x, target)
    model, loaded = models[0], built(code, shape, dtype="float32")
    same(list(models[1].state().values()), list(model.state().values()), "without replay")
    expected = outputs(model.predict(x))
    model.save_weights(folder / "weights.safetensors")
    loaded.load_weights(folder / "weights.safetensors")
    for what, other in (("deepcopy", copy.deepcopy(model)), ("pickle", pickle.loads(pickle.dumps(model))), ("a file", loaded)):
        same(outputs(other.predict(x)), expected, what)
    close(outputs(nb.fold_batch_norm(model).predict(x)), expected, "folded", 2e-3)


def _difference(code, x, step):
    try:
        nb.gradcheck(built(code, x.shape[1:]), x[:3], step=step, tolerance=1e-4)
    except GradientError as error:
        return error
    return None
