"""Where the time of one training step goes: each kernel of each layer, forward and backward, beside its floor.

The kernel calls of one step are recorded as for replay (nbnet.runtime.recording), then timed one by one, alternating with whole steps.
The floor of a call is the longer of two times: copying its arrays, at this machine's copy rate for that many bytes, and its multiply-adds
at the rate of an FMA loop. Each array counts once; scratch memory does not count. The multiply-adds are those of the definition, so minimal
filtering, which needs fewer, may be faster than its floor.
"""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Callable
from functools import cache, partial
from math import prod
from typing import Any

import numpy as np

import nbnet as nb
from nbnet import models
from nbnet.bench import floors, networks, ours
from nbnet.bench.tables import digits, seconds
from nbnet.errors import ArgumentError, unknown
from nbnet.kernels import load
from nbnet.kernels.cpu.numba_private import machine_code
from nbnet.runtime.recording import Pass, Recorder, copy_on

BATCHES = {"five-conv": 128, "mnist-cnn": 64, "digits-cnn": 64, "mlp": 1000, "mobile": 64, "airbench": 256}
BATCH, IMAGE = 128, (32, 32, 3)  # of other models
WARM, ROUNDS = 3, 30  # turns before those that count, and these
SHAPES = {"digits": (8, 8, 1), "lenet": (28, 28, 1)}  # of images; of other models IMAGE
LEAST, MOST = 1 << 14, 1 << 28  # bytes of a copy


def names() -> list[str]:
    """The models that can be profiled: those of nbnet bench, and those of nb.models for images."""
    return list(dict.fromkeys([*networks.NETWORKS, *models.MODELS]))


class _Watch(Recorder):
    """A recorder that notes beside each call which step of the model makes it, and its name."""

    def __init__(self, backend: Any) -> None:
        super().__init__(backend)
        self.step = ""
        self.made: list[tuple[str, str, int, int]] = []
        self.scratch = self._scratch
        self.scratches: list[np.ndarray] = []

    def of(self, step: str) -> _Watch:
        """The same recorder, for another step."""
        twin = copy.copy(self)
        twin.step = step
        return twin

    def kernel(self, op: str) -> Callable[..., Any]:
        return partial(self._kernel, op, self.backend.kernel(op))

    def _kernel(self, op: str, function: Callable[..., Any], *args: Any) -> None:
        function(*args)
        self._note(op, function, *args)

    def note(self, function: Callable[..., Any], *args: Any) -> None:
        self._note(getattr(function, "__name__", type(function).__name__), function, *args)

    def _note(self, op: str, function: Callable[..., Any], *args: Any) -> None:
        super().note(function, *args)
        self.made.append((self.step, op, self._bytes(args), _multiply_adds(op, args)))

    def _scratch(self, purpose: str, shape: tuple[int, ...], dtype: Any) -> Any:
        array = self.backend.scratch(purpose, shape, dtype)
        self.scratches.append(array)
        return array

    def _bytes(self, args: tuple[Any, ...]) -> int:
        """Bytes of the arrays among the arguments: each array once, scratch excluded."""
        arrays = [each for arg in args for each in (arg if type(arg) is tuple else (arg,)) if isinstance(each, np.ndarray)]
        held = [array for array in arrays if not any(np.may_share_memory(array, other) for other in self.scratches)]
        sizes: dict[int, int] = {}
        for array in held:
            sizes[array.ctypes.data] = max(sizes.get(array.ctypes.data, 0), array.nbytes)
        return sum(sizes.values())


def _multiply_adds(op: str, args: tuple[Any, ...]) -> int:
    """Multiply-adds of a convolution or a dense call, 0 for any other kernel."""
    if op.split(".")[0] not in ("conv2d", "depthwise", "dense"):
        return 0
    given = inspect.signature(load(op, "numpy")).bind(*args).arguments
    weight = given["dweight"] if "dweight" in given else given["weight"]
    pixels = given["dy"] if "dy" in given else given["y"]
    return int(weight.size * prod(pixels.shape[:-1]))


class Profile:
    """The profile of a training step.

    Args:
        name: of a model, one of `names()`.
    Raises:
        ArgumentError: there is no such model.
    """

    def __init__(self, name: str) -> None:
        if name not in names():
            raise ArgumentError(unknown("model", name, names()))
        self.name = name
        self.rows = BATCHES.get(name, BATCH)
        self.trainer, self.x, self.y = _trainer(name, self.rows)
        self.threads = self.trainer.model.backend.threads

    def run(self, progress: Callable[[int], None]) -> dict[str, Any]:
        """Times in seconds: of a whole step, and of each call; with its layer, direction, bytes and multiply-adds, and its floor."""
        calls = self._calls()
        whole, times = [], np.empty((WARM + ROUNDS, len(calls)))
        for turn in range(WARM + ROUNDS):
            began = time.perf_counter()
            self.trainer.train_batch(self.x, self.y)
            whole.append(time.perf_counter() - began)
            for i, (*_, run) in enumerate(calls):
                began = time.perf_counter()
                run()
                times[turn, i] = time.perf_counter() - began
            progress(turn + 1)
        medians = np.median(times[WARM:], axis=0)
        rows = [
            {"layer": layer, "direction": direction, "kernel": op, "seconds": float(median), "bytes": size, "multiply_adds": count}
            | {"floor": self._floor(size, count)}
            for (layer, direction, op, size, count, _), median in zip(calls, medians)
        ]
        return {"model": self.name, "batch": self.rows, "threads": self.threads, "step": float(np.median(whole[WARM:])), "calls": rows}

    def _calls(self) -> list[tuple[str, str, str, int, int, Callable[[], Any]]]:
        """Layer, direction, kernel, bytes, multiply-adds and a function that repeats the call."""
        model, loss, optimizer = self.trainer.model, self.trainer.loss, self.trainer.optimizer
        watch = _Watch(model.backend)
        twin: Any = copy.copy(model)
        twin.backend, twin.steps = watch, [copy_on(step, watch.of(step.name))[0] for step in model.steps]
        one = Pass(twin)
        prediction = one.forward(self.x)
        found, made = [], len(watch.made)
        gradient = loss(prediction, self.y, backend=model.backend).gradient
        one.backward(gradient)
        for number, ((layer, op, size, count), (function, args)) in enumerate(zip(watch.made, watch.calls, strict=True)):
            found.append((layer, "forward" if number < made else "backward", op, size, count, partial(machine_code(function, args), *args)))
        size = prediction.nbytes + gradient.nbytes
        found.insert(made, ("", "loss", type(loss).__name__, size, 0, partial(loss, prediction, self.y, backend=model.backend)))
        params = model.params
        optimizer.prepare(params)
        slots = sum(array.nbytes for array in optimizer.state.values() if hasattr(array, "nbytes"))
        size = sum(param.value.nbytes + param.grad.nbytes for param in params.values()) + slots
        update = partial(optimizer.step, params, model.backend)
        self._held = one, twin  # the arrays of the calls
        return [*found, ("", "update", type(optimizer).__name__, size, 0, update)]

    def _floor(self, size: int, multiply_adds: int) -> float:
        rate = fma_rate(self.threads, str(self.trainer.model.dtype))
        return max(size / copy_rate(size, self.threads), 2 * multiply_adds / rate)


def _trainer(name: str, rows: int) -> tuple[Any, Any, Any]:
    """A trainer, and a batch for it, with the floats that the model takes."""
    if name in networks.NETWORKS:
        network = networks.NETWORKS[name]
        return ours.trainer(network, nb.get_backend("parallel")), *networks.batch(network, rows)
    shape = SHAPES.get(name, IMAGE)
    model, rng = models.get(name)(10), np.random.default_rng(0)
    model.build(shape)
    x, y = rng.random((rows, *shape), np.float32), rng.integers(0, 10, rows)
    if name == "airbench":
        return nb.recipes.airbench(model, x, batch_size=rows), x, y
    return nb.Trainer(model, optimizer=nb.Adam(1e-3)), x, y


@cache
def fma_rate(threads: int, dtype: str) -> float:
    """Operations per second."""
    run = floors.fma32 if dtype == "float32" else floors.fma64
    lanes = floors.WIDTH // np.dtype(dtype).itemsize
    return 2.0 * floors.CHAINS * lanes * floors.LOOPS * threads / _best(lambda: run(threads, floors.LOOPS), 1)


def copy_rate(size: int, threads: int) -> float:
    """Bytes per second of a copy that reads and writes as many bytes together, or up to twice as many."""
    return _copy(min(max(1 << (size - 1).bit_length(), LEAST), MOST) if size > 1 else LEAST, threads)


@cache
def _copy(size: int, threads: int) -> float:
    source, target = np.ones(size // 16), np.zeros(size // 16)
    return size / _best(lambda: floors.copy(source, target, threads), max(1, (1 << 22) // size))


def _best(run: Callable[[], Any], times: int) -> float:
    """Seconds of a call: the best of several turns of so many calls each."""
    found = []
    for _ in range(8):
        began = time.perf_counter()
        for _ in range(times):
            run()
        found.append((time.perf_counter() - began) / times)
    return min(found[1:])


def lines(profile: dict[str, Any]) -> list[str]:
    """The profile as a table in Markdown. Calls of one kernel in one layer and direction are added up."""
    rows: dict[tuple[str, str, str], list[float]] = {}
    for call in profile["calls"]:
        sums = rows.setdefault((call["layer"], call["direction"], call["kernel"]), [0.0] * 4)
        for i, name in enumerate(("seconds", "bytes", "multiply_adds", "floor")):
            sums[i] += call[name]
    step, threads = profile["step"], profile["threads"]
    found = [
        f"{profile['model']}, batch {profile['batch']}, {threads} thread{'s' if threads > 1 else ''}: a step takes {seconds(step)}",
        "",
        "| layer | direction | kernel | time | share, % | MB | GFLOP | floor | of floor, % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (layer, direction, kernel), values in rows.items():
        found.append(_line([layer, direction, kernel], values, step))
    total = [sum(values[i] for values in rows.values()) for i in range(4)]
    found.append(_line(["all kernels", "", ""], total, step))
    rest = step - total[0]
    outside = f"Outside the kernels: {seconds(rest)}." if rest > 0 else "Timed one by one, the kernels take longer than the whole step."
    return [*found, "", f"{outside} At its floors the step would take {seconds(total[3])}."]


def _line(names: list[str], values: list[float], step: float) -> str:
    taken, size, multiply_adds, floor = values
    cells = [seconds(taken), f"{100 * taken / step:.1f}", digits(size / 1e6), digits(2 * multiply_adds / 1e9) if multiply_adds else ""]
    return f"| {' | '.join([*names, *cells, seconds(floor), f'{100 * floor / taken:.0f}'])} |"
