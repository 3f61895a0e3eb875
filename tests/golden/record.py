"""Record what the original frameworks compute, for nbnet's golden tests, which then need none of them.

    python3.11 -m venv golden-env
    golden-env/bin/pip install torch==2.13.0 tensorflow-cpu==2.21.0 keras==3.15.1 tf_keras==2.21.0 tf_slim==1.1.0 flax==0.12.8 jax==0.10.2
    golden-env/bin/python tests/golden/record.py                 # everything; or name some of main's `known`

Writes <framework>.npz and README.md beside itself. cases.py reads the files and tells their format. oracle.py makes the inputs and checks
each case by an independent computation in float64. record_tf.py and record_keras.py hold the frameworks on TensorFlow,
record_optimizers.py the optimisers.
Images are recorded as NHWC, whatever the framework, unless a case has "axis": 1. Parameters do not change over the steps.
"""

import importlib.metadata
import json
import sys
from functools import partial

import numpy as np
from cases import HERE, cases, versions
from oracle import Book, inputs

IMAGE, SMALL = (4, 3, 2, 3), (4, 1, 2, 3)


def installed(*packages):
    return {"python": sys.version.split()[0], "numpy": np.__version__} | {p: importlib.metadata.version(p) for p in packages}


def arguments(options):
    return "".join(f", {key}={value!r}" for key, value in options.items())


# ---- PyTorch ----


def nchw(torch, a):
    return torch.tensor(np.moveaxis(a, -1, 1).copy())


def nhwc(tensor):
    return np.moveaxis(tensor.detach().numpy(), 1, -1)


def torch_layer(torch, layer, gamma, beta):
    """The train and evaluate functions of a torch normalisation layer."""
    with torch.no_grad():
        if layer.weight is not None:
            layer.weight.copy_(torch.tensor(gamma))
            layer.bias.copy_(torch.tensor(beta))

    def step(x, dy):
        last = isinstance(layer, torch.nn.LayerNorm)  # the one that normalises the last axis
        xt = torch.tensor(x) if last else nchw(torch, x)
        xt.requires_grad_()
        layer.zero_grad()
        y = layer(xt)
        y.backward(torch.tensor(dy) if last else nchw(torch, dy))
        out = {"y": y.detach().numpy() if last else nhwc(y), "dx": xt.grad.numpy() if last else nhwc(xt.grad)}
        if layer.weight is not None:
            out |= {"dgamma": layer.weight.grad.numpy().copy(), "dbeta": layer.bias.grad.numpy().copy()}
        return out

    def train(x, dy, w):
        layer.train()
        out = step(x, dy)
        if getattr(layer, "running_mean", None) is not None:
            out |= {"moving_mean": layer.running_mean.numpy().copy(), "moving_var": layer.running_var.numpy().copy()}
        return out

    def evaluate(x, dy):
        layer.eval()
        return step(x, dy)

    return train, evaluate


def record_torch():
    import torch

    book = Book("torch", installed("torch"))

    def batch_norm(name, nbnet, shape=(6, 5), dtype="float64", **options):
        kind = "BatchNorm1d" if len(shape) == 2 else "BatchNorm2d"

        def make(gamma, beta, *_):
            layer = getattr(torch.nn, kind)(shape[-1], dtype=getattr(torch, dtype), **options)
            return torch_layer(torch, layer, gamma, beta)

        call = f"torch.nn.{kind}({shape[-1]}{arguments(options)})"
        book.norm(name, call, {"decay": 0.9, "eps": 1e-5, "unbiased": True} | nbnet, make, shape, dtype)

    batch_norm("default", {})
    batch_norm("default_2d", {}, IMAGE)
    batch_norm("default_2d_float32", {}, SMALL, "float32")
    batch_norm("default_float32", {}, dtype="float32")
    batch_norm("momentum", {"decay": 0.7}, momentum=0.3)
    batch_norm("cumulative", {"decay": None}, momentum=None)
    batch_norm("cumulative_2d", {"decay": None}, SMALL, momentum=None)
    batch_norm("no_affine", {"center": False, "scale": False}, affine=False)
    batch_norm("eps", {"eps": 1e-3}, eps=1e-3)
    batch_norm("two_values", {}, (2, 4))
    batch_norm("no_tracking", {"evaluation": "batch"}, track_running_stats=False)

    def other(name, shape, groups, make_layer, call, eps=1e-5, dtype="float64"):
        def make(gamma, beta, *_):
            return torch_layer(torch, make_layer(dtype=getattr(torch, dtype)), gamma, beta)

        kind = "layer_norm" if groups is None else "group_norm"
        book.norm(name, call, {"groups": groups, "eps": eps}, make, shape, dtype, kind=kind, steps=2)

    other("layer_norm", (6, 5), None, lambda **o: torch.nn.LayerNorm(5, **o), "torch.nn.LayerNorm(5)")
    other("layer_norm_float32", (6, 5), None, lambda **o: torch.nn.LayerNorm(5, **o), "torch.nn.LayerNorm(5)", dtype="float32")
    other("layer_norm_eps", (4, 3, 5), None, lambda **o: torch.nn.LayerNorm(5, 1e-2, **o), "torch.nn.LayerNorm(5, eps=0.01)", 1e-2)
    other("group_norm", (2, 3, 2, 6), 3, lambda **o: torch.nn.GroupNorm(3, 6, **o), "torch.nn.GroupNorm(3, 6)")
    other("group_norm_one", (2, 3, 2, 4), 1, lambda **o: torch.nn.GroupNorm(1, 4, **o), "torch.nn.GroupNorm(1, 4)")
    other("instance_norm", (2, 3, 2, 4), 4, lambda **o: torch.nn.GroupNorm(4, 4, **o), "torch.nn.GroupNorm(4, 4)")

    q = -1.7580993408473766  # alpha dropout's value of a dropped unit, before the affine correction

    def dropout(name, function, shape, same_over=None):
        """One step a rate. y = a x + b where kept, and the constant `dropped` elsewhere; the mask is the framework's own."""
        alpha, steps, torch_form = "alpha" in name, [], (torch.tensor, lambda t: t.detach().numpy())
        to, back = torch_form if len(shape) == 2 else (lambda a: nchw(torch, a), nhwc)
        torch.manual_seed(7)
        for x, dy, _ in inputs(shape, steps=4):
            rate = (0.0, 0.1, 0.5, 0.9, 1.0)[len(steps)]
            x = np.where(x == 0, 1.0, x)
            xt = to(x).requires_grad_()
            yt = function(xt, rate, True)
            yt.backward(to(dy))
            y, dx = back(yt), back(xt.grad)
            proper = 0 < rate < 1
            a = ((1 - rate) * (1 + rate * q * q)) ** -0.5 if alpha and proper else 1 / (1 - rate) if proper else 1.0 - rate
            b = -a * q * rate if alpha else 0.0
            low = a * q + b if alpha else 0.0
            keep = (np.abs(y - (a * x + b)) < 1e-9) * (rate < 1.0)
            book.compare(f"torch/{name} {rate} y", y, np.where(keep, a * x + b, low), "float64")
            book.compare(f"torch/{name} {rate} dx", dx, a * dy * keep, "float64")
            assert same_over is None or (keep == keep[:, :1, :1]).all()
            assert (function(to(x), rate, False) == to(x)).all()  # evaluation is the identity
            steps.append({"x": x, "dy": dy, "rate": rate, "keep": keep, "a": a, "b": b, "dropped": low, "y": y, "dx": dx})
        call = f"torch.nn.functional.{function.__name__}(x, p=rate, training=True)"
        nbnet = {"variant": "alpha" if alpha else "inverted", "noise_shape": [shape[0], 1, 1, shape[-1]] if same_over else None}
        book.add(name, {"kind": "dropout", "call": call, "dtype": "float64", "nbnet": nbnet}, {}, steps, {})

    F = torch.nn.functional
    dropout("dropout", F.dropout, (6, 5))
    dropout("alpha_dropout", F.alpha_dropout, (6, 5))
    dropout("dropout2d", F.dropout2d, (3, 2, 2, 4), (1, 2))
    dropout("feature_alpha_dropout", F.feature_alpha_dropout, (3, 2, 2, 4), (1, 2))
    book.save()


# ---- the dialect that averages the deviation: a transcription of a tutorial, by its formulas, with torch for the gradients ----


def record_sigma():
    import torch

    book = Book("sigma", installed("torch"))

    def batch_norm(name, shape=(6, 5), dtype="float64", d=0.9, eps=1e-6):
        def make(gamma, beta, *_):
            gamma, beta = (torch.tensor(a, requires_grad=True) for a in (gamma, beta))
            state = {"mu": torch.zeros_like(gamma), "sigma": torch.ones_like(gamma)}

            def step(x, dy, training):
                xt = torch.tensor(x, requires_grad=True)
                if training:
                    axes = tuple(range(x.ndim - 1))
                    mu, sigma = xt.mean(axes), torch.sqrt(torch.var(xt, axes) + eps)  # torch.var divides by n - 1
                    state["mu"] = d * state["mu"] + (1 - d) * mu.detach()
                    state["sigma"] = d * state["sigma"] + (1 - d) * sigma.detach()
                else:
                    mu, sigma = state["mu"], state["sigma"]
                y = gamma * (xt - mu) / sigma + beta
                dx, dgamma, dbeta = torch.autograd.grad(y, (xt, gamma, beta), torch.tensor(dy))
                out = {"y": y.detach().numpy(), "dx": dx.numpy(), "dgamma": dgamma.numpy(), "dbeta": dbeta.numpy()}
                return out | ({"moving_mean": state["mu"].numpy(), "moving_sigma": state["sigma"].numpy()} if training else {})

            return lambda x, dy, w: step(x, dy, True), lambda x, dy: step(x, dy, False)

        nbnet = {"decay": d, "eps": eps, "unbiased": True, "normalize_unbiased": True, "track": "deviation"}
        call = "transcription: sigma = sqrt(torch.var(x) + eps); sigma_moving = d sigma_moving + (1 - d) sigma"
        book.norm(name, call, nbnet, make, shape, dtype)

    batch_norm("default")
    batch_norm("image", SMALL)
    batch_norm("decay_eps", d=0.5, eps=1e-2)
    batch_norm("float32", dtype="float32")
    book.save()


# ---- Flax ----


def record_flax():
    import jax

    jax.config.update("jax_enable_x64", True)
    import flax.linen as nn
    import jax.numpy as jnp

    book = Book("flax", installed("flax", "jax", "jaxlib"))

    def functions(layer, gamma, beta, stats):
        params = {"scale": jnp.array(gamma)} if getattr(layer, "use_scale", True) else {}
        params |= {"bias": jnp.array(beta)} if getattr(layer, "use_bias", True) else {}
        state = {"batch_stats": stats} if stats else {}

        def step(x, dy, w, training):
            options = {"use_running_average": not training} if stats else {}
            if w is not None:
                options["mask"] = jnp.array(w.reshape(w.shape + (1,) * (x.ndim - w.ndim)), bool)

            def forward(x, params):
                return layer.apply({"params": params} | state, x, mutable=["batch_stats"], **options)

            y, pull, new = jax.vjp(forward, jnp.array(x), params, has_aux=True)
            dx, grads = pull(jnp.array(dy))
            out = {"y": y, "dx": dx, "dgamma": grads.get("scale"), "dbeta": grads.get("bias")}
            if training and stats:
                state["batch_stats"] = new["batch_stats"]
                out |= {"moving_mean": new["batch_stats"]["mean"], "moving_var": new["batch_stats"]["var"]}
            return out

        return lambda x, dy, w: step(x, dy, w, True), lambda x, dy: step(x, dy, None, False)

    def batch_norm(name, nbnet, shape=(6, 5), dtype="float64", weights=None, **options):
        def make(gamma, beta, mean, var):
            layer = nn.BatchNorm(dtype=dtype, param_dtype=dtype, **options)
            return functions(layer, gamma, beta, {"mean": jnp.array(mean), "var": jnp.array(var)})

        call = f"flax.linen.BatchNorm(dtype={dtype!r}, param_dtype={dtype!r}{arguments(options)})" + ("(x, mask=w)" if weights else "")
        book.norm(name, call, {"decay": 0.99, "eps": 1e-5} | nbnet, make, shape, dtype, weights)

    batch_norm("default", {})
    batch_norm("image", {"decay": 0.9}, IMAGE, momentum=0.9)
    batch_norm("two_pass_variance", {"decay": 0.9}, momentum=0.9, use_fast_variance=False)
    batch_norm("float32", {"decay": 0.9}, dtype="float32", momentum=0.9)
    batch_norm("no_scale", {"decay": 0.9, "scale": False, "eps": 1e-3}, momentum=0.9, use_scale=False, epsilon=1e-3)
    batch_norm("axis", {"decay": 0.9, "axis": 1}, (2, 3, 2, 2), momentum=0.9, axis=1)
    batch_norm("mask", {"decay": 0.9}, (8, 5), weights="mask", momentum=0.9)
    batch_norm("mask_image", {"decay": 0.9}, SMALL, weights="mask", momentum=0.9)
    batch_norm("mask_elements", {"decay": 0.9}, weights="elements", momentum=0.9, use_fast_variance=False)

    def other(name, kind, layer, call, groups, shape):
        book.norm(name, call, {"groups": groups, "eps": 1e-6}, lambda g, b, *_: functions(layer, g, b, None), shape, kind=kind, steps=2)

    kw = {"dtype": "float64", "param_dtype": "float64"}
    other("layer_norm", "layer_norm", nn.LayerNorm(**kw), "flax.linen.LayerNorm()", None, (6, 5))
    other("group_norm", "group_norm", nn.GroupNorm(num_groups=3, **kw), "flax.linen.GroupNorm(num_groups=3)", 3, (2, 3, 2, 6))
    book.save()


# ---- the page that lists it all ----

HEAD = """# Golden data

What the original frameworks compute on small inputs. `record.py` (with `record_tf.py`, `record_keras.py`, `record_optimizers.py`) wrote
the files and this page, and reruns them; `cases.py` reads them. Every number but the optimisers' was checked when it was recorded against
an independent computation (`oracle.py`), float64 to 1e-11 and float32 to 3e-5.

A case has training steps and mostly one evaluation after them; parameters change in those of optimisers alone. Keys are
`<case>|<step>|<what>`; the step is a number, `all` (the steps stacked on axis 0), `params` (gamma, beta, start_mean, start_var) or
`evaluation`. Equal arrays are stored once.
Images are NHWC unless `axis` says otherwise. In nbnet's terms: `decay` weighs the OLD moving value; `unbiased`: the moving variance
averages n/(n-1) times the variance; `track: deviation`: moving_sigma averages sqrt(var + eps); `w`: a step's mask or weights, one a
sample, a position or an element. `sigma` is a transcription of a tutorial by its formulas, not a framework.

Where the frameworks surprise (all of it is in the data):

- Renormalisation, Keras 3 and TensorFlow's version-1 layer alike: r = clip(sqrt(var + eps) / sigma, rmin, rmax) and k = clip((mean -
  renorm_mean) / sigma, -dmax, dmax), with sigma = max(renorm_sigma, sqrt(eps)). renorm_mean and renorm_sigma are averages of their own
  with weight renorm_momentum, from 0 and 1, not zero-debiased, updated after r and k are taken. Unclipped, the first step is y = gamma x
  + beta. For evaluation moving_sigma averages sqrt(var + eps) with weight momentum, and moving_var = max(moving_sigma^2 - eps, 0).
- Ghost batches in the version-1 layer: groups are strided; the moving values average the groups' means and variances. With
  renormalisation all groups share one r and k, from those averages.
- The fused kernels average the unbiased variance: tf_slim by default (fused=None means True), the version-1 layer on 4-D float32. Keras 3
  never does.
- tf_slim's batch weights: dgamma and dbeta sum dy over all samples, those of weight 0 too; so do Keras's and Flax's masks.
- Keras divides masked sums by count + 1e-7 (keras.config.epsilon()). The float64 cases are recorded with 1e-30 there.
- tf.train.ExponentialMovingAverage rounds the decay to float32 (`decay` in each step is what it used), debiases tensors only, and with
  num_updates divides by 1 - d_t^t, with the decay of this step alone.
- The version-1 layer and tf_slim round a decay given as a Python float to float32, even for float64 data. The float64 cases gave them
  numpy.float64, so that the decay is exact.
- tf.nn.weighted_moments returns 0, 0 where the weights sum to 0.
- Keras adds eps to the root before the correction of v (Adam, AMSGrad) or under the root (RMSprop, Adagrad), where PyTorch and nbnet add
  it to the corrected root. The optimisers of Keras are recorded with epsilon=0, where all agree. Its Nadam has momentum_decay = 1 in
  PyTorch's terms, its Adagrad starts at 0.1, and its weight decay is decoupled in every optimiser.
- PyTorch's Muon computes in bfloat16. It is recorded with this precision replaced by float64.
- Dropout with rate 1 gives zeros in torch's alpha dropout too; its formula has no value there.

`convert/` holds files as PyTorch and Keras write them, and the outputs of the networks in them: `record_convert.py` makes them.
"""


def write_readme():
    lines = [HEAD]
    for path in sorted(HERE.glob("*.npz")):
        known = ", ".join(f"{package} {version}" for package, version in versions(path.stem).items())
        lines += [f"## {path.stem}", "", known, ""]
        lines += ["| case | call | dtype | shape | steps | in nbnet's terms |", "|---|---|---|---|---|---|"]
        for case in cases(path.stem):
            o = case.options
            first = next(case.steps[0][key] for key in ("x", "value", "weight") if key in case.steps[0])
            terms = ", ".join(f"{key} {json.dumps(value)}" for key, value in o["nbnet"].items())
            lines.append(f"| {case} | `{o['call']}` | {o['dtype']} | {first.shape} | {len(case.steps)} | {terms} |")
        lines.append("")
    (HERE / "README.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def main(names):
    import record_keras
    import record_optimizers
    import record_tf

    known = {"torch": record_torch, "sigma": record_sigma, "flax": record_flax}
    known |= {"tf": record_tf.record_tf, "keras": record_keras.record_keras, "tf_slim": record_tf.record_slim}
    known |= {f"{name}_optimizers": partial(getattr(record_optimizers, f"record_{name}"), installed) for name in ("torch", "keras")}
    for name in names or known:
        known[name]()
    write_readme()


if __name__ == "__main__":
    main(sys.argv[1:])
