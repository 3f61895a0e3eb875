"""record.py's TensorFlow: its functions, its moving averages, its version-1 layer (tf_keras), and tf_slim (tf.contrib's batch_norm)."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # one order of summation
os.environ["TF_USE_LEGACY_KERAS"] = "1"  # tf.compat.v1.layers exists on tf_keras only; `import keras` is Keras 3 all the same

import numpy as np
from oracle import Book, grid, inputs
from record import IMAGE, SMALL, arguments, installed


def tensorflow():
    """TensorFlow 2.21, mended so that tf_slim 1.1 and the version-1 layers import."""
    import tensorflow as tf
    from tensorflow.python.framework import ops

    ops.Tensor = tf.Tensor
    import tf_keras.src.legacy_tf_layers.normalization as legacy

    sys.modules.setdefault("tf_keras.legacy_tf_layers.normalization", legacy)
    sys.modules.setdefault("tf_keras.legacy_tf_layers", sys.modules["tf_keras.src.legacy_tf_layers"])
    return tf


class Graph:
    """A version-1 graph with one batch norm in it, for training and for evaluation: build(x, training) -> y, under the scope "bn"."""

    def __init__(self, tf, build, shape, dtype, start=None, weights=False):
        self.v1, self.graph = tf.compat.v1, tf.Graph()
        v1 = self.v1
        with self.graph.as_default():
            self.x, self.dy = v1.placeholder(dtype, shape), v1.placeholder(dtype, shape)
            self.w = v1.placeholder(dtype, shape[:1]) if weights else None
            self.outputs = {}
            for training in (True, False):
                with v1.variable_scope("bn", reuse=not training):
                    y = build(self.x, training) if self.w is None else build(self.x, training, self.w)
                named = {v.op.name.split("/")[-1]: v for v in v1.global_variables()}
                wanted = {"dx": self.x} | {new: named[old] for new, old in (("dgamma", "gamma"), ("dbeta", "beta")) if old in named}
                grads = tf.gradients(y, list(wanted.values()), self.dy)
                self.outputs[training] = {"y": y} | dict(zip(wanted, grads))
            self.updates = v1.get_collection(v1.GraphKeys.UPDATE_OPS)
            self.variables = {v.op.name: v for v in v1.global_variables()}
            self.session = v1.Session()
            self.session.run(v1.global_variables_initializer())

    def moving(self):
        names = {"moving_mean": "moving_mean", "moving_variance": "moving_var", "moving_stddev": "moving_sigma",
                 "renorm_mean": "renorm_mean", "renorm_stddev": "renorm_sigma"}  # fmt: skip
        found = {names[key.split("/")[-1]]: v for key, v in self.variables.items() if key.split("/")[-1] in names}
        return {key: a.reshape(-1) for key, a in self.session.run(found).items()}

    def train(self, x, dy, w):
        feed = {self.x: x, self.dy: dy} | ({} if w is None else {self.w: w})
        before = self.moving()
        if self.updates:  # deferred: nothing moves until the updates run
            self.session.run(self.outputs[True], feed)
            assert all((before[key] == a).all() for key, a in self.moving().items())
        out, _ = self.session.run((self.outputs[True], self.updates), feed)
        assert any((before[key] != a).any() for key, a in self.moving().items())
        return self.flat(out) | self.moving()

    def evaluate(self, x, dy):
        feed = {self.x: x, self.dy: dy} | ({} if self.w is None else {self.w: np.ones(len(x))})
        return self.flat(self.session.run(self.outputs[False], feed))

    @staticmethod
    def flat(out):
        return {key: a.reshape(-1) if key in ("dgamma", "dbeta") else a for key, a in out.items()}

    def functions(self):
        return self.train, self.evaluate


# ---- TensorFlow: the functions, the moving averages, and the version-1 layer ----


def record_tf():
    tf = tensorflow()
    book = Book("tf", installed("tensorflow-cpu", "tf_keras"))
    record_functions(tf, book)
    record_averages(tf, book)
    record_version1(tf, book)
    book.save()


def record_functions(tf, book):
    dtype = "float64"
    (image, dy, w), *_ = inputs(IMAGE, weights="mask")
    steps, weighted = [], []
    for axes in ((0,), (0, 1, 2), (1, 2), (3,), (0, 1, 2, 3)):
        for keepdims in (False, True):
            shown = {"x": image, "axes": np.array(axes), "keepdims": np.array(keepdims)}
            mean, variance = (a.numpy() for a in tf.nn.moments(image, axes, keepdims=keepdims))
            book.compare(f"tf/moments {axes}", mean, image.mean(axes, keepdims=keepdims), dtype)
            book.compare(f"tf/moments {axes}", variance, image.var(axes, keepdims=keepdims), dtype)
            steps.append(shown | {"mean": mean, "var": variance})
            for one in (w[..., None], grid(np.linspace(0, 2, image.size)).reshape(IMAGE), grid([[[[0.5]]], [[[2]]], [[[0]]], [[[1]]]])):
                mean, variance = (a.numpy() for a in tf.nn.weighted_moments(image, axes, one, keepdims=keepdims))
                full = np.broadcast_to(one, IMAGE)
                total = full.sum(axes, keepdims=True)
                mu = np.divide((full * image).sum(axes, keepdims=True), total, out=np.zeros_like(total), where=total > 0)  # W = 0 gives 0
                var = np.divide((full * (image - mu) ** 2).sum(axes, keepdims=True), total, out=np.zeros_like(total), where=total > 0)
                book.compare(f"tf/weighted_moments {axes}", mean, mu if keepdims else mu.squeeze(axes), dtype)
                book.compare(f"tf/weighted_moments {axes}", variance, var if keepdims else var.squeeze(axes), dtype)
                if keepdims is False and (total > 0).all():
                    weighted.append(shown | {"w": one, "mean": mean, "var": variance})
    book.add(
        "moments", {"kind": "moments", "call": "tf.nn.moments(x, axes, keepdims=keepdims)", "dtype": dtype, "nbnet": {}}, {}, steps, {}
    )
    call = "tf.nn.weighted_moments(x, axes, w, keepdims=keepdims)"
    book.add("weighted_moments", {"kind": "moments", "call": call, "dtype": dtype, "nbnet": {}}, {}, weighted, {})

    names, steps = ("x", "mean", "variance", "offset", "scale"), []
    values = dict(zip(names, (image, image.mean((0, 1, 2)), image.var((0, 1, 2)), grid([0.5, -1, 2]), grid([1.5, -0.5, 1]))))
    for absent in ((), ("offset",), ("scale",), ("offset", "scale")):
        given = {key: tf.constant(a) for key, a in values.items() if key not in absent}
        with tf.GradientTape() as tape:
            tape.watch(given)
            y = tf.nn.batch_normalization(**(dict.fromkeys(names) | given), variance_epsilon=1e-3)
        grads = {"d" + key: a.numpy() for key, a in tape.gradient(y, given, tf.constant(dy)).items()}
        scale, s = values["scale"] if "scale" in given else 1.0, np.sqrt(values["variance"] + 1e-3)
        xh, pull, over = (image - values["mean"]) / s, dy * scale / s, (0, 1, 2)
        wanted = {"dx": pull, "dmean": -pull.sum(over), "dvariance": -0.5 * (pull * xh / s).sum(over)}
        wanted |= {"doffset": dy.sum(over), "dscale": (dy * xh).sum(over)}
        book.compare("tf/batch_normalization", y.numpy(), xh * scale + (values["offset"] if "offset" in given else 0), dtype)
        for key, a in grads.items():
            book.compare(f"tf/batch_normalization {key}", a, wanted[key], dtype)
        steps.append({key: a.numpy() for key, a in given.items()} | {"dy": dy, "y": y.numpy()} | grads)
    call = "tf.nn.batch_normalization(x, mean, variance, offset, scale, variance_epsilon=1e-3)"
    options = {"kind": "batch_normalization", "call": call, "dtype": dtype, "nbnet": {"eps": 1e-3}}
    book.add("batch_normalization", options, {}, steps, {})

    def fused(name, d, eps):
        def make(gamma, beta, mean, var):
            scale, offset, state = tf.constant(gamma), tf.constant(beta), {"mean": mean, "variance": var}

            def step(x, dy, training):
                x, factor = tf.constant(x), 1 - d if training else 1.0
                with tf.GradientTape() as tape:
                    tape.watch((x, scale, offset))
                    y, mean, variance = tf.compat.v1.nn.fused_batch_norm(
                        x, scale, offset, epsilon=eps, is_training=training, exponential_avg_factor=factor, **state
                    )
                dx, dgamma, dbeta = tape.gradient(y, (x, scale, offset), tf.constant(dy))
                if training:
                    state.update(mean=mean, variance=variance)
                out = {"y": y, "dx": dx, "dgamma": dgamma, "dbeta": dbeta}
                return out | ({"moving_mean": mean, "moving_var": variance} if training else {})

            return lambda x, dy, w: step(x, dy, True), lambda x, dy: step(x, dy, False)

        call = f"tf.compat.v1.nn.fused_batch_norm(x, scale, offset, mean, variance, epsilon={eps}, exponential_avg_factor={1 - d:.3g})"
        book.norm(name, call, {"decay": d, "eps": eps, "unbiased": True}, make, IMAGE, "float32")

    fused("fused", 0.9, 1e-3)
    fused("fused_batch_moments", 0.0, 1e-3)


def record_averages(tf, book):
    """Moving averages of one array. TensorFlow rounds the decay to float32: `decay` in each step is the weight that it really used."""
    v1, values = tf.compat.v1, [step[0][0] for step in inputs((2, 5), steps=8)]

    def average(name, call, nbnet, start, tensor, decay=0.95, num_updates=None, zero_debias=False):
        steps, shadow, biased = [], start if not tensor else np.zeros(5), 0.0
        with tf.Graph().as_default(), v1.Session() as session:
            value, count = v1.placeholder("float64", (5,)), v1.placeholder("float32", ())
            source = tf.identity(value) if tensor else v1.get_variable("v", initializer=tf.constant(start), use_resource=True)
            load = tf.no_op() if tensor else source.assign(value)
            ema = tf.train.ExponentialMovingAverage(decay, count if num_updates else None, zero_debias)
            update = ema.apply([source])
            session.run(v1.global_variables_initializer())
            for t, x in enumerate(values):
                session.run(load, {value: x})
                session.run(update, {value: x, count: t})
                got = session.run(ema.average(source))
                d32 = np.float32(decay)
                d32 = min(d32, np.float32(1 + t) / np.float32(10 + t)) if num_updates else d32
                d = 1 - float(np.float32(1) - d32)
                shadow, biased = d * shadow + (1 - d) * x, d * biased + (1 - d) * x
                debiased = zero_debias and tensor
                book.compare(f"tf/{name} {t}", got, biased / (1 - d ** (t + 1)) if debiased else shadow, "float64")
                steps.append({"value": x, "decay": np.array(d), "average": got} | ({"num_updates": np.array(t)} if num_updates else {}))
        options = {"kind": "moving_average", "call": call, "dtype": "float64", "nbnet": {"decay": decay} | nbnet}
        book.add(name, options, {"start": np.zeros(5) if tensor else start}, steps, {})

    start, form = grid(np.linspace(-2, 2, 5)), "tf.train.ExponentialMovingAverage(0.95{}).apply([{}])".format
    average("ema_variable", form("", "variable"), {}, start, False)
    average("ema_tensor", form("", "tensor"), {}, None, True)
    average("ema_num_updates", form(", num_updates=t", "variable"), {"num_updates": True}, start, False, num_updates=True)
    average("ema_zero_debias", form(", zero_debias=True", "tensor"), {"zero_debias": True}, None, True, zero_debias=True)
    average("ema_zero_debias_variable", form(", zero_debias=True", "variable"), {"zero_debias": False}, start, False, zero_debias=True)
    both = form(", num_updates=t, zero_debias=True", "tensor")
    average("ema_zero_debias_num_updates", both, {"zero_debias": True, "num_updates": True}, None, True, 0.95, True, True)

    from tensorflow.python.training import moving_averages

    steps, top, bottom = [], 0.0, 0.0
    with tf.Graph().as_default(), v1.Session() as session:
        value, weight = v1.placeholder("float64", (5,)), v1.placeholder("float64", (5,))
        update = moving_averages.weighted_moving_average(value, np.float64(0.9), weight)
        session.run(v1.global_variables_initializer())
        for t, x in enumerate(values):
            w = grid(np.linspace(0.25, 2, 5))[::-1] if t % 2 else grid(np.linspace(0.25, 2, 5))
            got = session.run(update, {value: x, weight: w})
            top, bottom = 0.9 * top + 0.1 * w * x, 0.9 * bottom + 0.1 * w
            book.compare(f"tf/weighted_moving_average {t}", got, top / bottom, "float64")
            steps.append({"value": x, "w": w, "average": got})
    call = "moving_averages.weighted_moving_average(value, 0.9, w)"
    options = {"kind": "moving_average", "call": call, "dtype": "float64", "nbnet": {"decay": 0.9, "weighted": True}}
    book.add("weighted_moving_average", options, {}, steps, {})


def record_version1(tf, book):
    def layer(name, nbnet, shape=(6, 5), dtype="float64", **options):
        exact = {key: np.float64(v) if isinstance(v, float) else v for key, v in options.items()}  # a Python float would become float32

        def make(gamma, beta, mean, var):
            start = {"gamma": gamma, "beta": beta, "moving_mean": mean, "moving_variance": var}
            initializers = {f"{key}_initializer": tf.compat.v1.constant_initializer(a) for key, a in start.items()}

            def build(x, training):
                return tf.compat.v1.layers.batch_normalization(x, training=training, **initializers, **exact, name="layer")

            return Graph(tf, build, shape, dtype).functions()

        call = f"tf.compat.v1.layers.batch_normalization(x, training{arguments(options)})"
        book.norm(name, call, {"decay": 0.99, "eps": 1e-3} | nbnet, make, shape, dtype)

    def renorm(decay=0.99, **bounds):
        return {"decay": 0.9, "renorm": {"decay": decay} | bounds, "track": "deviation"}

    unfused = {"momentum": 0.9, "epsilon": 1e-3, "fused": False}
    clip = {"rmin": 0.6, "rmax": 1.5, "dmax": 0.5}
    layer("v1", {}, epsilon=1e-3, momentum=0.99, fused=False)
    layer("v1_fused", {"unbiased": True}, IMAGE, "float32")
    layer("v1_renorm", renorm(), renorm=True, renorm_momentum=0.99, **unfused)
    layer("v1_renorm_momentum", renorm(0.7), renorm=True, renorm_momentum=0.7, **unfused)
    layer("v1_renorm_clipping", renorm(0.8, **clip), SMALL, renorm=True, renorm_momentum=0.8, renorm_clipping=clip, **unfused)
    ghost = {"decay": 0.9, "ghost": {"size": 4, "groups": "strided", "moving_var": "mean"}}
    pairs = {"decay": 0.9, "ghost": {"size": 2, "groups": "strided", "moving_var": "mean"}}
    layer("v1_ghost", ghost, (8, 5), virtual_batch_size=4, **unfused)
    layer("v1_ghost_image", pairs, SMALL, virtual_batch_size=2, **unfused)
    both = {"virtual_batch_size": 4, "renorm": True, "renorm_momentum": 0.8, "renorm_clipping": clip}
    layer("v1_ghost_renorm", ghost | renorm(0.8, **clip), (8, 5), **both, **unfused)


# ---- tf_slim: the batch_norm of tf.contrib ----


def record_slim():
    tf = tensorflow()
    import tf_slim

    book = Book("tf_slim", installed("tf-slim", "tensorflow-cpu", "tf_keras"))

    def batch_norm(name, nbnet, shape=(6, 5), dtype="float64", weights=None, deferred=False, **options):
        exact = {key: np.float64(v) if isinstance(v, float) else v for key, v in options.items()}  # a Python float would become float32
        exact |= {} if deferred else {"updates_collections": None}

        def make(gamma, beta, mean, var):
            start = {"gamma": gamma, "beta": beta, "moving_mean": mean, "moving_variance": var}
            start = {key: tf.compat.v1.constant_initializer(a) for key, a in start.items()}

            def build(x, training, w=None):
                more = {} if w is None else {"batch_weights": w}
                return tf_slim.batch_norm(x, is_training=training, param_initializers=start, scope="layer", **more, **exact)

            return Graph(tf, build, shape, dtype, weights=weights is not None).functions()

        shown = arguments(({"batch_weights": "w"} if weights else {}) | ({} if deferred else {"updates_collections": None}) | options)
        shown = shown.replace("'w'", "w")
        nbnet = {"decay": 0.999, "eps": 1e-3, "scale": False} | nbnet
        book.norm(name, f"tf_slim.batch_norm(x, is_training=True{shown})", nbnet, make, shape, dtype, weights)

    decay = {"decay": 0.9, "scale": True}
    unfused = {"decay": 0.9, "scale": True, "fused": False}
    clip = {"rmin": 0.6, "rmax": 1.5, "dmax": 0.5}
    batch_norm("unfused", {}, decay=0.999, fused=False)
    batch_norm("default_2d", {"unbiased": True}, dtype="float32")
    batch_norm("decay", decay, **unfused)
    batch_norm("image", decay, SMALL, **unfused)
    batch_norm("image_unfused_float32", decay, IMAGE, "float32", **unfused)
    batch_norm("image_fused_float32", decay | {"unbiased": True}, IMAGE, "float32", decay=0.9, scale=True, fused=True)
    batch_norm("no_center", decay | {"center": False}, center=False, **unfused)
    batch_norm("zero_debias", decay | {"zero_debias": "mean"}, zero_debias_moving_mean=True, **unfused)
    batch_norm("zero_debias_999", {"zero_debias": "mean"}, decay=0.999, fused=False, zero_debias_moving_mean=True)
    fused = {"decay": 0.9, "scale": True, "fused": True}
    batch_norm(
        "zero_debias_fused", decay | {"zero_debias": "mean", "unbiased": True}, dtype="float32", zero_debias_moving_mean=True, **fused
    )
    batch_norm("batch_weights", decay, (8, 5), weights="rows", decay=0.9, scale=True)
    batch_norm("batch_weights_image", decay, SMALL, weights="rows", decay=0.9, scale=True)
    later = {"updates": "deferred"}
    batch_norm("deferred", decay | later, deferred=True, **unfused)
    batch_norm("deferred_fused", decay | later | {"unbiased": True}, SMALL, "float32", deferred=True, **fused)
    own = {"renorm": {"decay": 0.8} | clip, "track": "deviation"}
    batch_norm("renorm", decay | later | own, deferred=True, epsilon=1e-3, renorm=True, renorm_decay=0.8, renorm_clipping=clip, **unfused)
    book.save()
