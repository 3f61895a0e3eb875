"""What record.py needs besides the frameworks: inputs, an independent NumPy computation of every case, and the files' format.

The formulas are written from their definitions and share no code with nbnet. A framework that stops agreeing makes the recorder fail.
"""

import json

import numpy as np
from cases import HERE

STEPS = 5
TOLERANCE = {"float64": 1e-11, "float32": 3e-5}


def grid(a):
    """Round to multiples of 1/64: exact in float32 too, and small when compressed."""
    return np.round(np.asarray(a) * 64) / 64


def inputs(shape, axis=-1, weights=None, steps=STEPS, seed=1):
    """x, dy and w (or None) of each training step and of the evaluation; each step has its own mean and scale a channel."""
    rng = np.random.Generator(np.random.Philox([seed, *shape]))
    out = []
    for t in range(steps + 1):
        channel = [1] * len(shape)
        channel[axis] = shape[axis]
        mean = rng.normal(1 - 0.5 * t, 1.5, channel)
        scale = rng.uniform(0.4, 1.2 + 0.4 * t, channel)
        x, dy = grid(mean + scale * rng.normal(size=shape)), grid(rng.normal(size=shape))
        w = None
        if weights == "mask":
            w = np.ones(shape[:-1])
            w.flat[rng.choice(w.size, max(1, w.size // 3), replace=False)] = 0
        elif weights == "elements":  # at least two values a channel are seen
            w = (rng.random(shape) < 0.7).astype(float)
            w[:2] = 1
        elif weights == "rows":
            w = rng.choice([0.25, 0.5, 1.0, 1.5, 2.0], shape[0])
            w[t % shape[0]] = 0
        out.append((x, dy, w))
    return out


def parameters(channels):
    """gamma and beta: exact in float32, of both signs."""
    rng = np.random.Generator(np.random.Philox(channels))
    return grid(rng.choice([-1, 1], channels) * rng.uniform(0.5, 2, channels)), grid(rng.normal(size=channels))


class BatchNorm:
    """One pass after another of batch normalisation in nbnet's terms, the defaults being the plain dialect."""

    DEFAULTS = {
        "decay": 0.9, "eps": 1e-5, "axis": -1, "center": True, "scale": True, "unbiased": False, "normalize_unbiased": False,
        "track": "variance", "zero_debias": None, "renorm": None, "ghost": None, "frozen": False, "evaluation": "moving",
        "updates": "inline",
    }  # fmt: skip

    def __init__(self, nbnet, params):
        unknown = set(nbnet) - set(self.DEFAULTS)
        assert not unknown, unknown
        self.o = self.DEFAULTS | nbnet
        self.gamma, self.beta = params.get("gamma", 1.0), params.get("beta", 0.0)
        self.mean, self.var = params["start_mean"].astype(float), params["start_var"].astype(float)
        self.sigma, self.z, self.t = np.sqrt(self.var), 0.0, 0
        self.r_mean, self.r_sigma = self.mean, self.sigma

    def rows(self, x, w):
        """x and w as (samples, positions, channels), with the weights of every value."""
        x = np.moveaxis(x.astype(float), self.o["axis"], -1)
        w = np.ones(1) if w is None else w
        w = np.broadcast_to(w if w.ndim == x.ndim else w.reshape(w.shape + (1,) * (x.ndim - w.ndim)), x.shape)
        return [a.reshape(x.shape[0], -1, x.shape[-1]) for a in (x, w)]

    def train(self, x, dy, w=None):
        if self.o["frozen"]:
            return self.evaluate(x, dy) | self.state()
        eps, ghost, renorm = self.o["eps"], self.o["ghost"], self.o["renorm"]
        (xs, ws), (dys, _) = self.rows(x, w), self.rows(dy, None)
        number = len(xs) // ghost["size"] if ghost else 1
        members = [np.arange(g, len(xs), number) for g in range(number)]  # TensorFlow's groups are strided
        parts = []
        for m in members:
            xg, wg = xs[m].reshape(-1, xs.shape[-1]), ws[m].reshape(-1, xs.shape[-1])
            total = wg.sum(0)
            mu = (wg * xg).sum(0) / total
            parts.append((m, xg, wg, total, mu, (wg * (xg - mu) ** 2).sum(0) / total))
        mu, var = np.mean([p[4] for p in parts], 0), np.mean([p[5] for p in parts], 0)
        r, k = 1.0, 0.0
        if renorm:
            sigma = np.maximum(self.r_sigma, np.sqrt(eps))
            r = np.clip(np.sqrt(var + eps) / sigma, renorm.get("rmin", 0), renorm.get("rmax", np.inf))
            k = np.clip((mu - self.r_mean) / sigma, -renorm.get("dmax", np.inf), renorm.get("dmax", np.inf))
        y, dx, dgamma, dbeta = np.empty_like(xs), np.empty_like(xs), 0.0, 0.0
        for m, xg, wg, total, mu_g, var_g in parts:
            n, dyg = len(xg), dys[m].reshape(xg.shape)
            bessel = n / (n - 1) if self.o["normalize_unbiased"] else 1.0
            s = np.sqrt(var_g * bessel + eps)
            xh = (xg - mu_g) / s
            y[m] = ((xh * r + k) * self.gamma + self.beta).reshape(y[m].shape)
            pull = wg / total * (dyg.sum(0) + bessel * xh * (dyg * xh).sum(0))
            dx[m] = (self.gamma * r / s * (dyg - pull)).reshape(y[m].shape)
            dgamma, dbeta = dgamma + (dyg * (xh * r + k)).sum(0), dbeta + dyg.sum(0)
        n = xs.shape[0] * xs.shape[1]
        self.update(mu, var * n / (n - 1) if self.o["unbiased"] else var)
        return self.shaped(x, y=y, dx=dx) | {"dgamma": dgamma, "dbeta": dbeta} | self.state()

    def update(self, mu, var):
        self.t += 1
        d, eps = self.o["decay"], self.o["eps"]
        d = 1 - 1 / self.t if d is None else d
        if self.o["zero_debias"] == "mean":
            self.z = d * self.z + (1 - d) * mu
            self.mean = self.z / (1 - d**self.t)
        else:
            self.mean = d * self.mean + (1 - d) * mu
        self.sigma = d * self.sigma + (1 - d) * np.sqrt(var + eps)
        if self.o["track"] == "deviation":
            self.var = np.maximum(self.sigma**2 - eps, 0)
        else:
            self.var = d * self.var + (1 - d) * var
        if self.o["renorm"]:
            own = self.o["renorm"]["decay"]
            self.r_mean = own * self.r_mean + (1 - own) * mu
            self.r_sigma = own * self.r_sigma + (1 - own) * np.sqrt(var + eps)

    def evaluate(self, x, dy):
        if self.o["evaluation"] == "batch":
            return {key: a for key, a in BatchNorm(self.o, {"gamma": self.gamma, "beta": self.beta} | self.start()).train(x, dy).items()
                    if key in ("y", "dx", "dgamma", "dbeta")}  # fmt: skip
        (xs, _), (dys, _) = self.rows(x, None), self.rows(dy, None)
        s = self.sigma if self.o["track"] == "deviation" and not self.o["renorm"] else np.sqrt(self.var + self.o["eps"])
        xh = (xs - self.mean) / s
        sums = {"dgamma": (dys * xh).sum((0, 1)), "dbeta": dys.sum((0, 1))}
        return self.shaped(x, y=xh * self.gamma + self.beta, dx=self.gamma * dys / s) | sums

    def start(self):
        return {"start_mean": np.zeros_like(self.mean), "start_var": np.ones_like(self.var)}

    def state(self):
        return {"moving_mean": self.mean, "moving_var": self.var, "moving_sigma": self.sigma,
                "renorm_mean": self.r_mean, "renorm_sigma": self.r_sigma}  # fmt: skip

    def shaped(self, like, **arrays):
        moved = np.moveaxis(like, self.o["axis"], -1).shape
        return {key: np.moveaxis(a.reshape(moved), -1, self.o["axis"]) for key, a in arrays.items()}


class GroupNorm:
    """Each sample normalised over groups of neighbouring channels and its positions; groups=None normalises the last axis alone."""

    def __init__(self, nbnet, params):
        self.groups, self.eps, self.params = nbnet["groups"], nbnet["eps"], params

    def train(self, x, dy, w=None):
        gamma, beta = self.params["gamma"], self.params["beta"]
        split = x.shape if self.groups is None else (x.shape[0], -1, self.groups, x.shape[-1] // self.groups)
        axes = -1 if self.groups is None else (1, 3)
        xs, g = x.astype(float).reshape(split), (gamma * dy).reshape(split)
        s = np.sqrt(xs.var(axes, keepdims=True) + self.eps)
        xh = (xs - xs.mean(axes, keepdims=True)) / s
        dx = (g - g.mean(axes, keepdims=True) - xh * (g * xh).mean(axes, keepdims=True)) / s
        xh, over = xh.reshape(x.shape), tuple(range(x.ndim - 1))
        return {"y": xh * gamma + beta, "dx": dx.reshape(x.shape), "dgamma": (dy * xh).sum(over), "dbeta": dy.sum(over)}

    def evaluate(self, x, dy):
        return self.train(x, dy)


class Book:
    """Collects the cases of one framework, checks each against the computation above, and writes the file."""

    def __init__(self, framework, versions):
        self.framework, self.versions, self.arrays = framework, versions, {}
        self.options, self.seen, self.same = {}, {}, {}

    def norm(self, name, call, nbnet, make, shape=(6, 5), dtype="float64", weights=None, start=False, kind="batch_norm", steps=STEPS):
        """Record a normalisation. make(gamma, beta, start_mean, start_var) -> train(x, dy, w), evaluate(x, dy): dicts of results."""
        channels = shape[nbnet.get("axis", -1)]
        gamma, beta = parameters(channels)
        mean, var = np.zeros(channels), np.ones(channels)
        if start:
            mean, var = grid(np.linspace(-1, 1, channels)), grid(np.linspace(0.5, 3, channels))
        params = {"gamma": gamma, "beta": beta} | ({"start_mean": mean, "start_var": var} if kind == "batch_norm" else {})
        params = {key: a.astype(dtype) for key, a in params.items()}
        train, evaluate = make(gamma.astype(dtype), beta.astype(dtype), mean.astype(dtype), var.astype(dtype))
        if not nbnet.get("scale", True):
            del params["gamma"]
        if not nbnet.get("center", True):
            del params["beta"]
        oracle = (BatchNorm if kind == "batch_norm" else GroupNorm)(nbnet, params)
        *training, last = inputs(shape, nbnet.get("axis", -1), weights, steps)
        steps = []
        for t, (x, dy, w) in enumerate(training):
            x, dy = x.astype(dtype), dy.astype(dtype)
            given = {"x": x, "dy": dy} | ({} if w is None else {"w": w})
            steps.append(given | self.checked(f"{name} step {t}", train(x, dy, w), oracle.train(x, dy, w), dtype))
        x, dy = last[0].astype(dtype), last[1].astype(dtype)
        evaluation = {"x": x, "dy": dy} | self.checked(f"{name} evaluation", evaluate(x, dy), oracle.evaluate(x, dy), dtype)
        shown = nbnet | ({"weights": weights} if weights else {})
        self.add(name, {"kind": kind, "call": call, "dtype": dtype, "nbnet": shown}, params, steps, evaluation)

    def checked(self, where, got, wanted, dtype):
        """The framework's results that exist, after comparing each with the oracle's."""
        got = {key: np.asarray(a) for key, a in got.items() if a is not None}
        for key, a in got.items():
            self.compare(f"{self.framework}/{where} {key}", a, wanted[key], dtype)
        return got

    @staticmethod
    def compare(where, got, wanted, dtype):
        got, wanted = np.asarray(got), np.asarray(wanted)
        assert got.dtype == dtype, f"{where}: {got.dtype}, not {dtype}"
        assert got.shape == wanted.shape, f"{where}: {got.shape}, not {wanted.shape}"
        error = np.max(np.abs(got - wanted)) / max(1.0, np.max(np.abs(wanted)))
        assert error <= TOLERANCE[dtype], f"{where}: differs by {error:.3g}\n{got}\n{wanted}"

    def put(self, key, array):
        """Store an array, or note that it is the same as one stored before: cases share their inputs, and often much more."""
        array = np.ascontiguousarray(array) if np.ndim(array) else np.asarray(array)
        first = self.seen.setdefault((array.tobytes(), array.dtype.str, array.shape), key)
        if first == key:
            self.arrays[key] = array
        else:
            self.same[key] = first

    def add(self, name, options, params, steps, evaluation):
        name = f"{self.framework}/{name}"
        assert name not in self.options, name
        self.options[name] = options | {"steps": len(steps)}
        for key, a in params.items():
            self.put(f"{name}|params|{key}", a)
        for key in {key: None for step in steps for key in step}:
            each = [np.asarray(step[key]) for step in steps if key in step]
            if len(each) == len(steps) and len({a.shape for a in each}) == 1:
                self.put(f"{name}|all|{key}", np.stack(each))
            else:
                for t, step in enumerate(steps):
                    if key in step:
                        self.put(f"{name}|{t}|{key}", np.asarray(step[key]))
        for key, a in evaluation.items():
            self.put(f"{name}|evaluation|{key}", a)

    def save(self):
        path = HERE / f"{self.framework}.npz"
        index = json.dumps({"versions": self.versions, "options": self.options, "same": self.same})
        np.savez_compressed(path, **self.arrays, index=np.frombuffer(index.encode(), np.uint8))
        print(f"{path.name}: {len(self.options)} cases, {path.stat().st_size / 1000:.0f} kB")
