"""record.py's Keras 3, on its TensorFlow backend."""

import os

from oracle import Book
from record import IMAGE, SMALL, arguments, installed
from record_tf import tensorflow


def record_keras():
    tf = tensorflow()
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    book = Book("keras", installed("keras", "tensorflow-cpu"))

    def functions(layer, shape, gamma, beta, mean=None, var=None):
        layer.build(shape)
        for variable, a in ((layer.gamma, gamma), (layer.beta, beta)):
            if variable is not None:
                variable.assign(a)
        moving = {"moving_mean": "moving_mean", "moving_var": "moving_variance", "moving_sigma": "moving_stddev",
                  "renorm_mean": "renorm_mean", "renorm_sigma": "renorm_stddev"}  # fmt: skip
        moving = {key: getattr(layer, name) for key, name in moving.items() if hasattr(layer, name)}
        if moving:
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(var)

        def step(x, dy, w, training):
            x, mask = tf.constant(x), {} if w is None else {"mask": tf.constant(w, bool)}
            params = {key: v.value for key, v in (("dgamma", layer.gamma), ("dbeta", layer.beta)) if v is not None}
            with tf.GradientTape() as tape:
                tape.watch((x, params))
                y = layer(x, training=training, **mask) if moving else layer(x)
            dx, grads = tape.gradient(y, (x, params), tf.constant(dy))
            return {"y": y, "dx": dx} | grads | ({key: v.numpy() for key, v in moving.items()} if training else {})

        return lambda x, dy, w: step(x, dy, w, True), lambda x, dy: step(x, dy, None, False)

    def batch_norm(name, nbnet, shape=(6, 5), dtype="float64", weights=None, start=False, trainable=True, **options):
        def make(gamma, beta, mean, var):
            layer = keras.layers.BatchNormalization(dtype=dtype, trainable=trainable, **options)
            return functions(layer, shape, gamma, beta, mean, var)

        shown = arguments({"dtype": dtype} | ({} if trainable else {"trainable": False}) | options).removeprefix(", ")
        call = f"keras.layers.BatchNormalization({shown})(x, training=True{', mask=w' if weights else ''})"
        book.norm(name, call, {"decay": 0.99, "eps": 1e-3} | nbnet, make, shape, dtype, weights, start)

    def renorm(decay=0.99, **bounds):
        return {"decay": 0.9, "renorm": {"decay": decay} | bounds, "track": "deviation"}

    clip = {"rmin": 0.6, "rmax": 1.5, "dmax": 0.5}
    batch_norm("default", {})
    batch_norm("momentum", {"decay": 0.9}, momentum=0.9)
    batch_norm("image", {"decay": 0.9}, IMAGE, momentum=0.9)
    batch_norm("image_float32", {"decay": 0.9}, SMALL, "float32", momentum=0.9)
    batch_norm("no_center", {"decay": 0.9, "center": False}, momentum=0.9, center=False)
    batch_norm("no_scale", {"decay": 0.9, "scale": False, "eps": 1e-5}, momentum=0.9, scale=False, epsilon=1e-5)
    batch_norm("axis", {"decay": 0.9, "axis": 1}, (2, 3, 2, 2), momentum=0.9, axis=1)
    batch_norm("frozen", {"frozen": True}, trainable=False, start=True)
    batch_norm("renorm", renorm(), momentum=0.9, renorm=True)
    batch_norm("renorm_momentum", renorm(0.7), momentum=0.9, renorm=True, renorm_momentum=0.7)
    batch_norm("renorm_clipping", renorm(0.8, **clip), SMALL, momentum=0.9, renorm=True, renorm_momentum=0.8, renorm_clipping=clip)
    batch_norm("renorm_no_affine", renorm() | {"scale": False, "center": False}, momentum=0.9, renorm=True, scale=False, center=False)
    batch_norm("mask_float32", {"decay": 0.9}, (8, 5), "float32", weights="mask", momentum=0.9)
    usual = keras.config.epsilon()
    keras.config.set_epsilon(1e-30)  # Keras divides by the count + this, 1e-7; so the mask is exact
    batch_norm("mask", {"decay": 0.9}, (8, 5), weights="mask", momentum=0.9)
    batch_norm("mask_image", {"decay": 0.9}, SMALL, weights="mask", momentum=0.9)
    keras.config.set_epsilon(usual)

    def other(name, kind, layer, call, groups, shape, eps=1e-3):
        book.norm(name, call, {"groups": groups, "eps": eps}, lambda g, b, *_: functions(layer, shape, g, b), shape, kind=kind, steps=2)

    other("layer_norm", "layer_norm", keras.layers.LayerNormalization(dtype="float64"), "keras.layers.LayerNormalization()", None, (6, 5))
    call = "keras.layers.GroupNormalization(groups=3)"
    other("group_norm", "group_norm", keras.layers.GroupNormalization(groups=3, dtype="float64"), call, 3, (2, 3, 2, 6))
    book.save()
