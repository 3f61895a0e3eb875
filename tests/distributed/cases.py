"""Trainings that are the same on any number of ranks: each returns what must be equal. Run as a file, by mpiexec, it prints it as JSON."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

import nbnet as nb

ROWS = 200


def digest(trainer):
    found = hashlib.sha256()
    for name, array in sorted(trainer.state().arrays.items()):
        found.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def data(rows=ROWS):
    (x, y), (x_test, y_test), _ = nb.datasets.load("digits")
    return (x[:rows], y[:rows]), (x_test[:301], y_test[:301])


def network(**norm):
    body = [nb.Conv2D(8, 3), nb.BatchNorm(**norm), nb.GELU(), nb.Conv2D(8, 3)]
    first = [nb.Conv2D(8, 3, use_bias=False), nb.BatchNorm(**norm), nb.ReLU(), nb.MaxPool2D(2)]
    last = [nb.Flatten(), nb.Dense(13), nb.ReLU(), nb.Dropout(0.3), nb.Dense(150), nb.BatchNorm(**norm), nb.ReLU(), nb.Dense(10)]
    return nb.Sequential([*first, nb.Residual(body), nb.BatchNorm(**norm), nb.Dropout(0.1, spatial=True), *last])


def trainer(comm, slices=8, dtype="float32", model=None, optimizer=None, **options):
    model = network() if model is None else model
    if model.input_shape is None:
        model.build((8, 8, 1), dtype=dtype, seed=1)
    return nb.Trainer(model, optimizer=optimizer or nb.SGD(0.05, momentum=0.9), comm=comm, slices=slices, **options)


def batches(comm, folder, rows=40, steps=6, **options):
    """Some steps of train_batch."""
    t = trainer(comm, **options)
    (x, y), _ = data()
    seen = [t.train_batch(x[i * rows : (i + 1) * rows], y[i * rows : (i + 1) * rows]) for i in range(min(steps, ROWS // rows))]
    return [digest(t), seen]


def fit(comm, folder, **options):
    """fit, evaluate and predict with metrics, augmentation, an average, clipping, and a last batch that is smaller."""
    average = nb.ExponentialMovingAverage(0.9)
    t = trainer(comm, augment=["crop", "cutout"], metrics=["f1"], average=average, clip_norm=1.0, schedule="one_cycle", **options)
    train, test = data()
    t.fit(train, 2, 48, validation=test, progress=False)
    history = {name: column for name, column in t.history.items() if name != "seconds"}
    predicted = nb.distributed.predict(t.model, test[0], comm)
    assert np.array_equal(predicted, t.model.predict(test[0]))
    return [digest(t), history, t.evaluate(*test), t.report(*test).matrix.tolist()]


def resumed(comm, folder):
    """A run that stops within an epoch, and goes on on this number of ranks."""
    path = folder / "stopped.safetensors"
    t = trainer(comm, None if comm is None else 8)
    if comm is None:
        t = trainer(comm)
    t.restore(path)
    t.fit(data()[0], 2, 48, progress=False)
    return digest(t)


class Stop(nb.callbacks.Callback):
    def on_batch_end(self, trainer):
        if trainer.step == 6:
            trainer.stop("a test")


def stopped(comm, folder):
    """A run that stops within its second epoch, and saves itself."""
    t = trainer(comm)
    t.fit(data()[0], 2, 48, callbacks=[Stop()], progress=False)
    t.save(folder / "stopped.safetensors")
    return [digest(t), t.position.batches]


NORMS = {
    "plain": {},
    "apart": {"sync": False},
    "apart_deferred": {"sync": False, "update": "deferred"},
    "ghost": {"virtual_batch_size": 2},
    "ghost_mean": {"virtual_batch_size": 2, "group_variance": "mean", "unbiased": False},
    "renorm": {"renorm": nb.Renorm(2.0, 0.5, 0.5, decay=0.9)},
    "deferred": {"update": "deferred", "zero_debias": True},
    "cumulative": {"decay": None, "unbiased_batch": True, "track": "deviation"},
}


def norms(comm, folder):
    """Every dialect of batch norm."""
    return {name: batches(comm, folder, steps=3, model=network(**norm))[0] for name, norm in NORMS.items()}


def layers(comm, folder):
    """Layers in several places, several inputs and outputs, channels first, a layer of the user's."""

    class Scale(nb.Layer):
        def create(self, input_shape):
            self.add_param("factor", (1,), "ones")
            self.add_buffer("seen", np.zeros(1))
            return input_shape

        def forward(self, x, train=False):
            x = self.check_input(x)
            if train:
                self.buffers["seen"][:] = 0.5 * self.buffers["seen"] + x.mean()
            return x * self.params["factor"].value, x

        def backward(self, dy, saved, need_dx=True):
            self.params["factor"].grad[:] = (dy * saved).sum()
            return dy * self.params["factor"].value

    shared = nb.Dense(16, activation="relu")
    found = {}
    trunk = [nb.Flatten(), nb.Dense(16), nb.BatchNorm(), shared, nb.Dropout(0.2), shared, Scale(), nb.Dense(10)]
    found["own"] = batches(comm, folder, model=nb.Sequential(trunk))[0]
    images = [nb.Conv2D(4, 3), nb.BatchNorm(axis=1), nb.BatchNorm(axis=2, activation="gelu")]
    gate = nb.Multiply([nb.Identity(), [nb.GlobalAvgPool2D(), nb.Dense(4, activation="sigmoid")]])
    found["axes"] = batches(comm, folder, model=nb.Sequential([*images, gate, nb.Flatten(), nb.Dense(10)]))[0]
    frozen = network()
    frozen.build((8, 8, 1), seed=1)
    frozen.layers[1].freeze()
    found["frozen"] = batches(comm, folder, model=frozen)[0]
    twins = nb.Sequential([nb.Parallel([nb.Dense(6), nb.Dense(7)]), nb.Concat(), nb.BatchNorm(), nb.Parallel([nb.Dense(3), nb.Dense(2)])])
    twins.build(((5,), (4,)), seed=1)
    t = nb.Trainer(twins, loss=("mean_squared_error", "softmax_cross_entropy"), optimizer=nb.SGD(0.1), comm=comm, slices=8)
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(60, 5)), rng.normal(size=(60, 4))), (rng.normal(size=(60, 3)), rng.integers(0, 2, 60))
    t.fit((x, y), 3, 25, progress=False)
    found["several"] = digest(t)
    return found


def options(comm, folder):
    """Optimisers, accumulation, losses whose rows do not all count, weights, float64, other slices, batches of the user's own."""
    (x, y), _ = data()
    weights = np.linspace(0, 2, len(y))
    ignoring = nb.losses.SoftmaxCrossEntropy(ignore_index=3)
    found = {}
    found["muon"] = batches(comm, folder, optimizer=nb.Muon(0.02), clip_norm=0.5)[0]
    found["accumulate"] = batches(comm, folder, accumulate=2, optimizer="adamw")[0]
    found["float64"] = batches(comm, folder, dtype="float64")
    found["4 slices"] = batches(comm, folder, slices=4)
    found["few rows"] = batches(comm, folder, rows=3)
    found["replay"] = batches(comm, folder, replay=False)
    of_numpy = network()
    of_numpy.build((8, 8, 1), seed=1, backend="numpy")
    found["numpy"] = batches(comm, folder, model=of_numpy, steps=2)
    t = trainer(comm, loss=ignoring)
    t.fit((x, y, weights), 1, 50, progress=False)
    found["ignored"] = [digest(t), t.history["loss"]]
    t = trainer(comm, augment=["flip", "mixup"])
    own = [(x[i : i + 33], y[i : i + 33]) for i in range(0, 165, 33)]
    t.fit(own, 2, validation=own, progress=False)
    found["own batches"] = [digest(t), t.history["val_loss"]]
    return found


class Rows:
    """An array that is not in memory, and notes which rows are read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, set()

    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        self.read |= set(np.arange(len(self))[rows].ravel().tolist())
        return self.array[rows]


def reads(comm, folder):
    """Each rank reads its rows alone, but for a few that are compared."""
    (x, y), (x_test, y_test) = data()
    size, found = 1 if comm is None else comm.Get_size(), {}
    train, test, some = Rows(x), Rows(x_test), Rows(x_test)
    t = trainer(comm)
    t.fit((train, y), 1, 48, validation=(test, y_test), progress=False)
    found["lazy"] = [digest(t), t.history["val_loss"]]
    predicted = nb.distributed.predict(t.model, some, comm, 20)
    assert np.array_equal(predicted, t.model.predict(x_test, 20))
    for rows, extra in ((train, 16 + 8), (test, 16 + 256), (some, 20)):
        assert len(rows.read) <= len(rows) / size + extra, (len(rows.read), size)
    path = folder / f"rows{0 if comm is None else comm.Get_rank()}.npy"
    np.save(path, x.astype(np.float32) / 255)
    mapped = np.load(path, mmap_mode="r")
    t = trainer(comm, augment=["flip"])
    t.fit((mapped, y), 1, 48, progress=False)
    found["mapped"] = digest(t)
    return found


def files(comm, folder):
    """Each rank opens the files of its rows, but for a few that are compared; loading opens each file on one rank of a node."""
    from nbnet.datasets import images

    rank, size = (0, 1) if comm is None else (comm.Get_rank(), comm.Get_size())
    pictures, count, opened = folder / "pictures", 96, []
    if not pictures.exists():  # the first process has made them
        from PIL import Image

        x, y = nb.datasets.load("digits")[0]
        for i in range(count + 8):
            path = pictures / "ab"[i % 2] / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(x[i, :, :, 0]).save(path)
    before = images._opened
    images._opened = lambda path: (opened.append(str(path)), before(path))[1]
    try:
        load = lambda: nb.datasets.from_folder(pictures, memory_limit=64 * 10, test_fraction=8 / 104)  # noqa: E731
        (x, y), test, _ = nb.distributed.shared(nb.distributed.Ranks(comm), comm, load)
        assert bool(opened) == (rank == 0)  # on one node
        opened.clear()
        assert len(x) == count
        t = trainer(comm)
        t.fit((x, y), 1, 48, validation=test, progress=False)
    finally:
        images._opened = before
    assert len(set(opened)) <= count / size + 16 + 8, (len(set(opened)), size)
    return [digest(t), t.history["val_loss"]]


def wires(comm, folder):
    """Rounded on the wire: the same on all ranks, and near what is not rounded."""
    exact, found = trainer(comm, optimizer=nb.SGD(1.0)), {}
    (x, y), _ = data()
    exact.train_batch(x[:64], y[:64])
    for wire, tolerance in (("float16", 2e-3), ("bfloat16", 2e-2)):
        t = trainer(comm, optimizer=nb.SGD(1.0), wire=wire)
        t.train_batch(x[:64], y[:64])
        assert t.ranks.bytes < 0.7 * exact.ranks.bytes
        for name, param in t.model.params.items():
            gradient = exact.model.params[name].grad
            assert 0 < np.abs(param.grad - gradient).max() <= tolerance * np.abs(gradient).max() or name.endswith(("gamma", "beta", "bias"))
        found[wire] = digest(t)
    return found


CASES = {case.__name__: case for case in (batches, fit, stopped, resumed, norms, layers, options, reads, files, wires)}


if __name__ == "__main__":
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    for name in sys.argv[2:]:
        found = CASES[name](world, Path(sys.argv[1]))
        everywhere = world.allgather(json.dumps(found))
        assert len(set(everywhere)) == 1, name
        if world.rank == 0:
            print(json.dumps({name: found}), flush=True)
