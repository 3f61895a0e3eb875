"""Training steps on backend cuda: when the host waits, what a step copies, what a loss that is not finite changes, and recorded steps."""

import copy
import sys
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest
from cuda_machine import EXECUTED, GPU, SIMULATED
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, BackendError, ExtraError, NonFiniteError
from nbnet.training import graph

pytestmark = pytest.mark.skipif(not (SIMULATED or GPU), reason="there is no GPU: use --cuda=simulator or --cuda=executor")
SIDE, ROWS = 4, 4
compiled = pytest.mark.skipif(SIMULATED, reason="takes minutes in the simulator; the executor runs it")


@pytest.fixture
def by_list(monkeypatch):
    """Recorded steps are played as lists of launches; the number of launches of each that was played."""
    from nbnet.kernels.gpu.launches import stream

    played = []

    def capture(recording):
        return lambda: (played.append(len(recording.calls)), recording.play(stream()))

    monkeypatch.setattr(graph, "capture", capture)
    return played


def layers():
    return [
        nb.Conv2D(3, 3, use_bias=False),
        nb.BatchNorm(),
        nb.ReLU(),
        nb.Conv2D(2, 3, use_bias=False),
        nb.BatchNorm(stats_dtype="float64"),
        nb.Flatten(),
        nb.Dropout(0.25),
        nb.Dense(3),
    ]


def trainer(optimizer=None, make=layers, backend="cuda", loss="softmax_cross_entropy", **options):
    model = nb.Sequential(make())
    model.build((SIDE, SIDE, 2), backend=backend, dtype="float32", seed=7)
    return nb.Trainer(model, loss, optimizer=nb.AdamW(1e-2) if optimizer is None else optimizer, **options)


def batch(seed=0, rows=ROWS):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, SIDE, SIDE, 2)).astype("float32"), rng.integers(0, 3, rows)


def bits(run):
    arrays = run.model.state() | {f"optimizer.{name}": array for name, array in run.optimizer.state.items()}
    return {name: np.asarray(array).tobytes() for name, array in arrays.items()}


def assert_same(a, b):
    a, b = bits(a), bits(b)
    assert [name for name in a if a[name] != b[name]] == []


# ------------------------------------------------------------------------------------------------------------ the host


@pytest.fixture
def log(monkeypatch):
    """Launches, copies on the GPU and waits of the host, in order."""
    from nbnet.kernels.gpu import launches, transfers

    found = []

    def logged(owner, method, word):
        original = getattr(owner, method)
        monkeypatch.setattr(owner, method, lambda *args: (found.append(word), original(*args))[1])

    logged(launches.Launch, "play", "launch")
    logged(launches, "copy", "copy")
    logged(transfers.Download, "arrived", "wait")
    logged(type(launches.stream()), "synchronize", "wait")
    return found


@pytest.mark.parametrize("options", [{}, {"metrics": ["f1"]}, {"accumulate": 2}, {"clip_norm": 0.1}], ids=str)
def test_the_host_waits_once_after_the_last_launch(log, options):
    run = trainer(**options)
    for seed in range(2):
        log.clear()
        run.train_batch(*batch(seed))
    first = log.index("wait")
    assert "launch" not in log[first:]
    assert log.count("wait") == (2 if "metrics" in options else 1)  # for the predictions
    assert first > 15


@compiled
def test_a_step_that_needs_the_host_waits_before_its_update(log):
    run = trainer(nb.Muon(0.01))
    run.train_batch(*batch())
    assert "launch" in log[log.index("wait") :]


def test_buffers_are_copied_once_for_each_dtype(log):
    run = trainer()
    run.train_batch(*batch())
    log.clear()
    run.train_batch(*batch())
    assert log.count("copy") == 2
    assert sum(map(len, run.model.buffers)) > 2


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy], ids=["deep", "shallow"])
def test_buffers_of_a_copy_are_copied_at_once_too(copied):
    model = trainer().model
    twin = copied(model)
    for one in (model, twin):
        on_gpu = [array for array in one.buffer_memory() if not isinstance(array, np.ndarray)]
        assert len(on_gpu) == 2
        for flat in on_gpu:
            flat[:] = 5
        moving = [np.asarray(array) for name, array in one.buffers.items() if "moving" in name]
        assert len(moving) == 4
        assert all((array == 5).all() for array in moving)


@compiled
def test_buffers_that_were_replaced_are_restored_too():
    run = trainer()
    run.train_batch(*batch())
    norm = run.model.layers[1]
    norm._buffers["moving_mean"] = norm.buffers["moving_mean"].copy()
    run.model._gather()
    before = bits(run)
    x, y = batch()
    x[0] = 3e38
    with pytest.raises(NonFiniteError, match="gives NaN or infinity"):
        run.train_batch(x, y)
    assert bits(run) == before


# --------------------------------------------------------------------------------------------------- not finite


def unsound(seed=5):
    x, y = batch(seed)
    x[1] = 3e38  # the convolution overflows
    return x, y


@pytest.mark.parametrize(
    "optimizer", [nb.SGD(0.1, momentum=0.9), nb.AdamW(1e-2), nb.Adam(1e-2, amsgrad=True), nb.Lion(1e-3)], ids=lambda one: type(one).__name__
)
@compiled
def test_a_loss_that_is_not_finite_changes_nothing(optimizer):
    """Nor do later steps differ from those of a run without it."""
    run, spared = trainer(copy.deepcopy(optimizer)), trainer(copy.deepcopy(optimizer))
    for one in (run, spared):
        one.train_batch(*batch(0))
    before, step = bits(run), (run.step, run.optimizer.steps)
    with pytest.raises(NonFiniteError, match=r"the loss is nan at step 1: layer 0\.conv2d gives NaN or infinity"):
        run.train_batch(*unsound())
    assert bits(run) == before
    assert (run.step, run.optimizer.steps) == step
    assert run.train_batch(*batch(1)) == spared.train_batch(*batch(1))
    assert_same(run, spared)


@pytest.mark.parametrize("place", [0, 1], ids=["first part", "last part"])
@compiled
def test_a_part_of_a_batch_that_is_not_finite_changes_nothing(place):
    run = trainer(accumulate=2)
    run.train_batch(*batch())
    before = bits(run)
    x, y = batch(1)
    x[2 * place] = 3e38
    with pytest.raises(NonFiniteError, match="gives NaN or infinity"):
        run.train_batch(x, y)
    assert bits(run) == before


@compiled
def test_the_update_is_launched_before_the_loss_is_known(monkeypatch):
    """So it is the gate that keeps it from writing: with an open gate the parameters become NaN."""
    from nbnet.kernels.gpu.gate import Gate

    run = trainer()
    monkeypatch.setattr(Gate, "check", lambda self, losses: None)
    with pytest.raises(NonFiniteError):
        run.train_batch(*unsound())
    assert any(np.isnan(np.asarray(param.value)).any() for param in run.model.params.values())


@pytest.mark.parametrize("losses", [[1.0, np.nan], [np.inf, 1.0], [-np.inf, np.inf], [1e300, 1e301]], ids=str)
def test_the_gate(losses):
    from nbnet.kernels.gpu import device
    from nbnet.kernels.gpu.gate import Gate

    gate = Gate()
    for part in (np.ones(5), np.array([1e300, -1e300])):
        gate.check(device.to_device(part))
        assert np.asarray(gate.state) == 1
    gate.check(device.to_device(np.array([0.0] * 1000 + losses)))
    assert np.asarray(gate.state) == 0
    gate.check(device.to_device(np.ones(3)))
    assert np.asarray(gate.state) == 0


@pytest.mark.parametrize("graphs", [False, True])
@compiled
def test_an_interrupt_while_the_host_waits_completes_the_step(monkeypatch, by_list, graphs):
    from nbnet.kernels.gpu.transfers import Download

    run, whole = trainer(graph=graphs), trainer()
    for seed in range(3):
        for one in (run, whole):
            one.train_batch(*batch(seed))
    arrived, calls = Download.arrived, []

    def interrupted(self):
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return arrived(self)

    monkeypatch.setattr(Download, "arrived", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.train_batch(*batch(3))
    whole.train_batch(*batch(3))
    assert run.step == run.optimizer.steps == 4
    assert_same(run, whole)


# ----------------------------------------------------------------------------------------------- recorded steps


def test_the_number_of_launches_says_that_steps_were_played(by_list):
    run = trainer(graph=True)
    for seed in range(5):
        run.train_batch(*batch(seed))
    assert len(by_list) == 3
    assert len(set(by_list)) == 1


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@compiled
def test_fit_has_the_same_bits_with_and_without(by_list, dtype):
    """With a last batch of another size, a validation, which drops what is recorded, a schedule, weights and an average."""
    rows = 3 * ROWS + 2
    x = np.random.default_rng(3).integers(0, 256, (rows, SIDE, SIDE, 2)).astype(dtype)
    y, weights = np.arange(rows) % 3, np.linspace(0.5, 1.5, rows)
    runs, histories = [], []
    for graphs in (False, True):
        run = trainer(graph=graphs, schedule="one_cycle", average=nb.ExponentialMovingAverage(0.9), metrics=["f1"])
        history = run.fit((x, y), 2, ROWS, validation=(x, y), sample_weight=weights, progress=False)
        histories.append({name: column for name, column in history.items() if name != "seconds"})
        runs.append(run)
    assert histories[0] == histories[1]
    assert_same(*runs)
    assert by_list


def reloaded(run):
    with tempfile.TemporaryDirectory() as folder:
        run.save(f"{folder}/run.safetensors")
        run.restore(f"{folder}/run.safetensors")


CHANGES = {
    "nothing": lambda run: None,
    "the learning rate": lambda run: setattr(run.optimizer, "lr", 0.5),
    "beta1": lambda run: setattr(run.optimizer, "beta1", 0.5),
    "amsgrad": lambda run: (setattr(run.optimizer, "amsgrad", True), run.optimizer.state.clear()),
    "a frozen parameter": lambda run: setattr(run.model.params["0.conv2d.weight"], "trainable", False),
    "the rate of dropout": lambda run: setattr(run.model.layers[6], "rate", 0.5),
    "the decay of moving statistics": lambda run: setattr(run.model.layers[1].moving, "decay", 0.5),
    "a frozen norm": lambda run: run.model.layers[1].freeze(),
    "the loss": lambda run: setattr(run, "loss", nb.losses.SoftmaxCrossEntropy(0.1)),
    "numbers of a parameter": lambda run: run.model.params["7.dense.weight"].value.__setitem__(slice(None), np.full((32, 3), 0.1)),
    "an array of a parameter": lambda run: setattr(
        run.model.params["7.dense.bias"], "value", run.model.backend.place(np.ones(3, np.float32))
    ),
    "the optimiser": lambda run: setattr(run, "optimizer", nb.AdamW(1e-2)),
    "the state": lambda run: reloaded(run),
}


@pytest.mark.parametrize("change", CHANGES)
@compiled
def test_a_change_between_steps_is_seen(by_list, change):
    runs = [trainer(graph=graphs) for graphs in (False, True)]
    for seed in range(6):
        if seed == 3:
            for run in runs:
                CHANGES[change](run)
        assert runs[0].train_batch(*batch(seed)) == runs[1].train_batch(*batch(seed)), seed
    assert_same(*runs)
    assert by_list


@pytest.mark.parametrize(
    "loss",
    [
        nb.losses.SoftmaxCrossEntropy(0.1, [1, 2, 0.5], ignore_index=0),
        nb.losses.SoftmaxCrossEntropy(ignore_index=0, reduction="sum"),
        nb.losses.kl_divergence,
        nb.losses.BinaryCrossEntropy(pos_weight=[1, 2, 3]),
        nb.losses.Huber(0.5),
    ],
    ids=lambda loss: loss.name,
)
@compiled
def test_losses(by_list, loss):
    runs = [trainer(graph=graphs, loss=loss) for graphs in (False, True)]
    for seed in range(5):
        x, y = batch(seed)
        if not isinstance(loss, nb.losses.SoftmaxCrossEntropy) or loss.name == "kl_divergence":
            y = np.random.default_rng(seed).dirichlet(np.ones(3), ROWS).astype(np.float32)
        assert runs[0].train_batch(x, y) == runs[1].train_batch(x, y), seed
    assert_same(*runs)
    assert by_list


def test_a_loss_that_is_not_finite_changes_nothing_in_a_recorded_step(by_list):
    run, spared = trainer(graph=True), trainer()
    for seed in range(3):
        for one in (run, spared):
            one.train_batch(*batch(seed))
    before = bits(run)
    with pytest.raises(NonFiniteError, match=r"the loss is nan at step 3: layer 0\.conv2d gives NaN or infinity"):
        run.train_batch(*unsound())
    assert bits(run) == before
    for seed in range(3, 7):
        assert run.train_batch(*batch(seed)) == spared.train_batch(*batch(seed))
    assert_same(run, spared)


@compiled
def test_wrong_targets_change_nothing_in_a_recorded_step(by_list):
    run = trainer(graph=True)
    for seed in range(3):
        run.train_batch(*batch(seed))
    before, steps = bits(run), run.optimizer.steps
    step = next(iter(run.graphs.passes._recordings.values()))
    x, y = batch()
    with pytest.raises(nb.NbnetError, match="expected 0 to 2"):
        step.play(run, graph.Batch(x, y + 5, None, ROWS), 0.1, (), [])
    assert (bits(run), run.optimizer.steps) == (before, steps)


@compiled
def test_what_is_recorded_keeps_its_memory(by_list):
    """Other work, which takes what the pool has, does not change a played step; a dropped recording gives its memory back."""
    run, plain = trainer(graph=True), trainer()
    pool = run.model.backend.pool
    for seed in range(4):
        taken = [pool.empty((size,), np.uint8) for size in 8 * (256, 512, 1024, 4096, 1 << 16)]
        for array in taken:
            array[:] = 7
        del taken, array
        assert run.train_batch(*batch(seed)) == plain.train_batch(*batch(seed))
    assert_same(run, plain)
    free = sum(map(len, pool._free.values()))
    run.clear_passes()
    assert sum(map(len, pool._free.values())) > free + 10


def test_slots_share_no_memory_with_what_is_launched(by_list):
    run = trainer(graph=True)
    for seed in range(2):
        run.train_batch(*batch(seed))
    recording = next(iter(run.graphs.passes._recordings.values())).recording
    assert len(recording.slots) >= 5  # labels, the divisor, the counter of dropout twice, the optimiser's numbers
    own = {id(block) for blocks in recording._free.values() for block in blocks}
    assert own
    assert not own & {id(chunk.lease.block) for chunk in recording._kept}


@pytest.mark.parametrize("options", [{"decay": None}, {"warm_decay": True}], ids=str)
@compiled
def test_moving_statistics_whose_decay_changes(by_list, options):
    def make():
        return [nb.Conv2D(3, 3, use_bias=False), nb.BatchNorm(**options), nb.Flatten(), nb.Dense(3)]

    runs = [
        trainer(nb.SGD(0.1), make, graph=graphs, backend=backend)
        for backend, graphs in (("serial", False), ("cuda", False), ("cuda", True))
    ]
    for seed in range(5):
        losses = [run.train_batch(*batch(seed)) for run in runs]
        assert losses[1] == losses[2]
    assert_same(*runs[1:])
    for name, array in runs[0].model.buffers.items():
        assert_close(np.asarray(runs[1].model.buffers[name]), array, "training", "float32")
    assert len(by_list) == 3


@pytest.mark.parametrize("limit", [1e-3, 1e3])
@compiled
def test_gradients_are_clipped_as_on_the_cpu(by_list, limit):
    """The second limit is above every norm."""
    runs = [
        trainer(nb.SGD(0.1), graph=graphs, backend=backend, clip_norm=limit)
        for backend, graphs in (("serial", False), ("cuda", False), ("cuda", True))
    ]
    for seed in range(4):
        losses = [run.train_batch(*batch(seed)) for run in runs]
        assert losses[1] == losses[2]
        for a, b in zip(*(run.model.params.values() for run in runs[:2])):
            assert_close(np.asarray(b.grad), a.grad, "training", "float32")
    assert_same(*runs[1:])
    norm = np.sqrt(sum((np.asarray(param.grad).astype(np.float64) ** 2).sum() for param in runs[1].model.params.values()))
    assert norm <= limit * (1 + 1e-6)
    assert len(by_list) == 2


# -------------------------------------------------------------------------------------------------------- refusals

NOT_RECORDED = {
    "a regularizer": (lambda: trainer(make=regularized, graph=True), "graph=True with a regularizer, which the host computes"),
    "muon": (lambda: trainer(nb.Muon(0.1), graph=True), "graph=True with the optimiser Muon, which the host computes"),
    "spatial dropout": (
        lambda: trainer(make=lambda: [nb.Dropout(0.5, spatial=True), nb.Flatten(), nb.Dense(3)], graph=True),
        "graph=True with layer 0.dropout, whose Python has to run in every step",
    ),
    "a norm without bias": (
        lambda: trainer(make=lambda: [nb.BatchNorm(zero_debias=True), nb.Flatten(), nb.Dense(3)], graph=True),
        "graph=True with layer 0.batchnorm, whose Python has to run in every step",
    ),
    "a loss of rows": (lambda: trainer(graph=True, loss=OfRows()), "copied an array to the host"),
    "a layer": (
        lambda: trainer(make=lambda: [Reads(), nb.Flatten(), nb.Dense(3)], graph=True),
        "copied an array to the host, expected kernels alone",
    ),
}


def regularized():
    return [nb.Flatten(), nb.BatchNorm(gamma_regularizer=nb.regularizers.l2(0.1)), nb.Dense(3)]


class OfRows(nb.losses.Loss):
    def of_rows(self, prediction, target):
        return (prediction**2).sum(axis=1), 2 * prediction


class Reads(nb.Layer):
    """Says that it may be recorded, and reads values."""

    replayable = True

    def forward(self, x, train=False):
        np.asarray(x)
        return self.check_input(x), None

    def backward(self, dy, saved, need_dx=True):
        return dy


@pytest.mark.parametrize("case", NOT_RECORDED)
@compiled
def test_what_needs_the_host_is_refused_and_changes_nothing(by_list, case):
    make, message = NOT_RECORDED[case]
    run = make()
    states = [bits(run)]

    def train():
        for seed in range(3):
            run.train_batch(*batch(seed))
            states.append(bits(run))

    with pytest.raises((ArgumentError, BackendError), match=message) as found:
        train()
    assert "\n" not in str(found.value)
    assert bits(run) == states[-1]
    assert run.step == run.optimizer.steps == len(states) - 1
    assert by_list == []


@pytest.mark.parametrize("backend", ["numpy", "serial", "parallel"])
def test_other_backends_have_no_graphs(backend):
    with pytest.raises(ArgumentError, match=f"graph=True is for backend 'cuda', got a model on '{backend}'"):
        trainer(backend=backend, graph=True)


def test_options_without_graphs(monkeypatch):
    with pytest.raises(ArgumentError, match="graph=True with accumulate=2, expected 1"):
        trainer(graph=True, accumulate=2)
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with pytest.raises(ExtraError, match=r"graph=True needs cuda\.core .*: pip install 'nbnet\[cuda\]'"):
        trainer(graph=True)


# --------------------------------------------------------------------------------------------------------- capture


def test_the_order_of_a_capture(monkeypatch):
    """With a stand-in for cuda.core: the launches of the list go to the builder's stream, and the graph to nbnet's."""
    from nbnet.kernels.gpu import launches

    log = []

    class Builder:
        stream = "the builder's stream"

        def begin_building(self):
            log.append("begin")

        def end_building(self):
            log.append("end")
            return self

        def complete(self):
            return SimpleNamespace(launch=lambda on: log.append(f"launch on {on}"))

        def close(self):
            log.append("close")

    gpu = SimpleNamespace(set_current=lambda: log.append("current"), create_graph_builder=Builder)
    core = SimpleNamespace(Device=lambda: gpu, Stream=SimpleNamespace(from_handle=lambda handle: f"stream {handle}"))
    monkeypatch.setitem(sys.modules, "cuda.core", core)
    monkeypatch.setattr(launches, "stream", lambda: SimpleNamespace(handle=17))
    start = graph.capture(SimpleNamespace(play=lambda on: log.append(f"play on {on}")))
    assert log == ["current", "begin", "play on the builder's stream", "end", "close"]
    start()
    assert log[-1] == "launch on stream 17"


@pytest.mark.skipif(EXECUTED or SIMULATED, reason="there is no GPU")
def test_captured_steps_have_the_bits_of_ordinary_ones():
    runs = [trainer(graph=graphs) for graphs in (False, True)]
    for seed in range(6):
        assert runs[0].train_batch(*batch(seed)) == runs[1].train_batch(*batch(seed))
    assert_same(*runs)
