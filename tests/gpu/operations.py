"""Everything that has a name and computes, as calls that run on any backend: CASES is {name: (kind of tolerance, call)}.

A call takes a backend and a dtype and gives arrays. tests/gpu/test_operations.py compares those of `cuda` with those of `numpy`, and checks
that nothing public is missing.
"""

from functools import partial

import numpy as np
from layers.test_layers import LAYERS
from layers.test_layers import run as pass_of_layer
from losses.table import TABLE, predictions

import nbnet as nb
from nbnet import augment, losses, metrics, optimizers
from nbnet.kernels.activations import SMOOTH

F = nb.functional
IMAGE = (2, 5, 4, 6)
ROWS = 6


def random(*shape, seed=0):
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape)


def flat(results):
    """The arrays in results, which may be in tuples."""
    if isinstance(results, (tuple, list)):
        return [array for each in results for array in flat(each)]
    return [] if results is None else [results]


# ---------------------------------------------------------------------------------------------------------- functional

PER_CHANNEL, PIXELS = (6,), (5, 4, 6)
# name: shape of x, shapes of what comes after it, other arguments, options
FUNCTIONS = {
    "adaptive_avg_pool2d": (IMAGE, [], [(3, 3)], {}),
    "avg_pool2d": (IMAGE, [], [3], {"stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": True}),
    "max_pool2d": (IMAGE, [], [2], {}),
    "batch_norm": (IMAGE, [PER_CHANNEL] * 2, [], {"ddof": 1}),
    "conv2d": (IMAGE, [(3, 3, 3, 4), (4,)], [], {"groups": 2, "dilation": (1, 2), "padding_mode": "reflect"}),
    "conv_transpose2d": (IMAGE, [(2, 3, 2, 6), (4,)], [], {"stride": 2, "groups": 2, "padding": 1, "output_padding": 1}),
    "dense": ((5, 6), [(6, 3), (3,)], [], {}),
    "dropout": (IMAGE, [], [0.3], {"seed": 3, "step": 2, "variant": "alpha", "noise_shape": (2, 1, 1, 6)}),
    "group_norm": (IMAGE, [PER_CHANNEL] * 2, [3], {}),
    "layer_norm": (IMAGE, [PIXELS] * 2, [], {"axes": (1, 2, 3)}),
    "rms_norm": (IMAGE, [PER_CHANNEL], [], {}),
    "pad2d": (IMAGE, [], [((1, 2), (0, 3)), "edge"], {}),
    "upsample2d": (IMAGE, [], [2, "bilinear"], {}),
    "prelu": (IMAGE, [PER_CHANNEL], [], {}),
    "softmax": ((5, 7), [], [], {}),
    "log_softmax": ((5, 7), [], [], {}),
    **{
        name: (IMAGE, [], options, {})
        for name, options in {
            "celu": [0.7], "elu": [0.7], "gelu": ["tanh"], "hardsigmoid": [], "hardswish": [], "hardtanh": [-0.5, 0.75],
            "leaky_relu": [0.2], "logsigmoid": [], "mish": [], "relu": [], "relu6": [], "selu": [], "sigmoid": [], "silu": [],
            "softplus": [2.0, 3.0], "softsign": [], "tanh": [],
        }.items()
    },
}  # fmt: skip


def function(name, backend, dtype):
    """Forward, and backward through a random dy."""
    shape, others, values, options = FUNCTIONS[name]
    arrays = [random(*each, seed=i).astype(dtype) for i, each in enumerate([shape, *others])]
    y, saved = getattr(F, f"{name}_forward")(*arrays, *values, **options, backend=backend)
    dy = random(*y.shape, seed=9).astype(dtype)
    return [y, *flat(getattr(F, f"{name}_backward")(dy, saved))]


def resample(backend, dtype):
    taps = F.Taps(np.array([[0, 1], [2, -1], [4, 3]]), random(3, 2), 5), F.Taps(np.array([[3], [0]]), random(2, 1), 4)
    y, saved = F.resample_forward(random(*IMAGE).astype(dtype), *taps, backend=backend)
    return [y, F.resample_backward(random(*y.shape, seed=1).astype(dtype), saved)]


def batch_norm_in_parts(weighted, backend, dtype):
    """The parts of batch norm, whose statistics and sums are merged over two batches, with masks or weights."""
    x, dy, gamma, beta = (random(*shape, seed=i).astype(dtype) for i, shape in enumerate([IMAGE, IMAGE, PER_CHANNEL, PER_CHANNEL]))
    weights = {"none": None, "rows": np.arange(40.0).reshape(2, 5, 4, 1) % 3, "elements": random(*IMAGE, seed=4) > 0}[weighted]
    parts = [None if weights is None else weights[i : i + 1].astype(dtype) for i in range(2)]
    stats = F.merge_stats([F.batch_norm_stats(x[i : i + 1], parts[i], backend=backend) for i in range(2)])
    y, saved = F.batch_norm_apply(x, stats, gamma, beta, weights=None if weights is None else weights.astype(dtype), backend=backend)
    sums = F.batch_norm_backward_reduce(dy, saved)
    return [stats.mean, stats.m2, y, F.batch_norm_backward_apply(dy, saved, sums), *F.batch_norm_parameter_gradients(sums, saved)]


def moments(axes, backend, dtype):
    return F.moments(random(*IMAGE).astype(dtype), axes, weights=np.arange(40.0).reshape(2, 5, 4, 1) % 3, backend=backend)


IN_PARTS = {"batch_norm_stats", "batch_norm_apply", "batch_norm_backward_reduce", "batch_norm_backward_apply"}
IN_PARTS |= {"batch_norm_parameter_gradients", "merge_stats"}
CASES = {f"functional {name}": ("matmul", partial(function, name)) for name in FUNCTIONS}
CASES |= {
    f"functional batch_norm in parts, weights: {each}": ("reduction", partial(batch_norm_in_parts, each))
    for each in ("none", "rows", "elements")
}
CASES |= {f"functional moments {axes}": ("reduction", partial(moments, axes)) for axes in (0, (1, 2), (0, 1, 2))}
CASES["functional resample"] = ("matmul", resample)

# -------------------------------------------------------------------------------------------------------------- layers


def with_activation(name, backend, dtype):
    """Batch norm and an activation, which are one kernel forward and one backward."""
    model = nb.Sequential([nb.BatchNorm(activation=name)])
    model.build(IMAGE[1:], backend=backend, dtype=dtype, seed=3)
    y, saved = model.forward(random(*IMAGE).astype(dtype), train=True)
    return [y, model.backward(random(*IMAGE, seed=1).astype(dtype), saved), *(param.grad for param in model.params.values())]


CASES |= {f"batch norm with {name}": ("matmul", partial(with_activation, name)) for name in SMOOTH}


def layer(name, backend, dtype):
    """A training pass, and one in evaluation."""
    factory, shape = LAYERS[name]
    model = nb.Sequential([factory()])
    model.build(shape, backend=backend, dtype=dtype, seed=3)
    return [*pass_of_layer(name, backend, dtype), model.predict(random(3, *shape, seed=5).astype(dtype))]


CASES |= {f"layer {name}": ("matmul", partial(layer, name)) for name in LAYERS}

# ---------------------------------------------------------------------------------------- losses, metrics, transforms


def loss(name, weighted, backend, dtype):
    shape, targets, _ = TABLE[name]
    rng = np.random.Generator(np.random.Philox(7))
    prediction, target = rng.normal(size=shape).astype(dtype), targets(rng)
    weights = rng.uniform(size=5) if weighted else None
    result = losses.get(name)(predictions(name, prediction), target, sample_weight=weights, backend=backend)
    return [np.array([result.total, result.correct or 0], np.float64), *flat(result.gradient)]


def metric(name, backend, dtype):
    """Of a model's outputs while it trains, and in the evaluation after it."""
    of_numbers = name in ("mae", "r2")
    model = nb.Sequential([nb.Dense(7)])
    model.build((5,), backend=backend, dtype=dtype, seed=7)
    trainer = nb.Trainer(model, "mean_squared_error" if of_numbers else "softmax_cross_entropy", nb.SGD(0.1), metrics=[name])
    x, y = random(4 * ROWS, 5).astype(dtype), random(4 * ROWS, 7, seed=1) if of_numbers else np.arange(4 * ROWS) % 7
    history = trainer.fit((x, y), 1, ROWS, validation=(x, y), progress=False)
    return [np.array([history[name], history[f"val_{name}"]])]


TRANSFORMS = {
    "affine": augment.RandomAffine(30, (0.7, 1.4), 10, "reflect"), "color": augment.ColorJitter(0.4, 0.3, 0.2, 0.1),
    "crop": augment.RandomCrop(2), "cutmix": augment.CutMix(), "cutout": augment.Cutout(3), "flip": augment.RandomFlip(vertical=True),
    "mixup": augment.MixUp(), "noise": augment.RandomNoise(0.1), "translate": augment.RandomTranslate(0.3),
    "Normalize": augment.Normalize(0.5, 0.25),
}  # fmt: skip


def transform(name, backend, dtype):
    pictures = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    return [augment.apply([TRANSFORMS[name]], pictures, epoch=3, seed=9, dtype=dtype, backend=backend)]


CASES |= {f"loss {name}{', weighted' * w}": ("reduction", partial(loss, name, w)) for name in losses.LOSSES for w in (False, True)}
CASES |= {f"metric {name}": ("training", partial(metric, name)) for name in metrics.METRICS}
CASES |= {f"transform {name}": ("elementwise", partial(transform, name)) for name in TRANSFORMS}

# ------------------------------------------------------------------------------------- training, and what changes models


def small():
    return [nb.Conv2D(4, 3, use_bias=False), nb.BatchNorm(activation="relu"), nb.Flatten(), nb.Dropout(0.25), nb.Dense(3)]


def trained(backend, dtype, steps=3, **options):
    """A trainer after some steps; without dropout's kinks the roundings of two backends stay together."""
    model = nb.Sequential(small())
    model.build((4, 4, 2), backend=backend, dtype=dtype, seed=7)
    options = {"optimizer": nb.SGD(0.05, momentum=0.9), **options}
    trainer = nb.Trainer(model, **options)
    for step in range(steps):
        trainer.train_batch(random(ROWS, 4, 4, 2, seed=step).astype(dtype), np.arange(ROWS) % 3)
    return trainer


def after(options, backend, dtype):
    """Parameters and buffers after training, and what is predicted with the averages."""
    trainer = trained(backend, dtype, **options())
    x = random(ROWS, 4, 4, 2, seed=11).astype(dtype)
    found = trainer.evaluate(x, np.arange(ROWS) % 3)["loss"]
    return [np.array(found), *trainer.model.state().values(), *trainer.optimizer.state.values()]


def by_optimizer(name):
    return {"optimizer": optimizers.OPTIMIZERS[name](0.01, weight_decay=0.1)}


TRAININGS = {
    **{f"optimizer {name}": partial(by_optimizer, name) for name in optimizers.OPTIMIZERS},
    "optimizer sgd, nesterov": lambda: {"optimizer": nb.SGD(0.05, momentum=0.9, nesterov=True)},
    "optimizer adam, amsgrad": lambda: {"optimizer": nb.Adam(0.01, amsgrad=True)},
    "average ExponentialMovingAverage": lambda: {"average": nb.ExponentialMovingAverage(0.9)},
    "average StochasticWeightAverage": lambda: {"average": nb.StochasticWeightAverage()},
    "average Lookahead": lambda: {"average": nb.Lookahead(2)},
    "training, clip_norm": lambda: {"clip_norm": 0.1},
    "training, accumulate": lambda: {"accumulate": 2},
    "training, schedule": lambda: {"schedule": nb.schedules.cosine()},
    "training, augment": lambda: {"augment": [augment.Normalize(0.5, 0.25)]},
}  # fmt: skip
CASES |= {name: ("training", partial(after, options)) for name, options in TRAININGS.items()}


def changed(change, backend, dtype):
    """What a trained model predicts after a change, and its state."""
    model = trained(backend, dtype).model
    x = random(2 * ROWS, 4, 4, 2, seed=12).astype(dtype)
    found = change(model, x)
    return [*flat(found), *model.state().values(), model.predict(x)]


def frozen(model, x):
    nb.freeze(model, "0.*", "1.*")
    nb.Trainer(model, optimizer=nb.SGD(0.1)).train_batch(x, np.arange(len(x)) % 3)
    nb.unfreeze(model, "1.*")
    nb.Trainer(model, optimizer=nb.SGD(0.1)).train_batch(x, np.arange(len(x)) % 3)


def exported(model, x):
    values = nb.batch_norm_export(model.layers[1], "pytorch")
    nb.batch_norm_import(
        model.layers[1], "pytorch", {key: value if key == "eps" else 2 * np.asarray(value) for key, value in values.items()}
    )
    return [np.asarray(value, np.float64) for value in values.values()]


def rates(model, x):
    trainer = nb.Trainer(model, optimizer=nb.SGD(0.1))
    return np.array(nb.lr_range_test(trainer, (x, np.arange(len(x)) % 3), steps=4, batch_size=ROWS).losses)


CHANGES = {
    "batch_norm_report": lambda model, x: np.array([each[2:5] for each in nb.batch_norm_report(model, x, show=False)], np.float64),
    "lr_range_test": rates,
    "predict": lambda model, x: model.predict(x, 5),
    "Predictor": lambda model, x: [nb.Predictor(model).predict(x, 5) for _ in range(3)],
    "fold_batch_norm": lambda model, x: nb.fold_batch_norm(model).predict(x),
    "freeze, unfreeze": frozen,
    "recalibrate": lambda model, x: nb.recalibrate(model, x),
    "predict_views": lambda model, x: nb.predict_views(model, x),
    "batch_norm_export, batch_norm_import": exported,
}  # fmt: skip
CASES |= {f"model, {name}": ("training", partial(changed, change)) for name, change in CHANGES.items()}
