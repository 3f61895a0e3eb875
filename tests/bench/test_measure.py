"""How nbnet bench measures: turns, checks, starts, and a contender's process, with contenders that do nothing."""

import pickle
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from nbnet.bench import contenders, floors, measure, worker, workloads
from nbnet.bench.workloads import Workload

from .made_up import FakeProcess

RIGHT = {"y": {"shape": (2,), "sample": np.array([1.0, -2.0]), "largest": 2.0, "squares": 5.0}}
DENSE = Workload("dense", (8, 9), 7)


def contender(name, **options):
    return contenders.backend("numpy")._replace(name=name, **options)


def process(name, seconds, build=RIGHT, **options):
    return FakeProcess(contender(name, **options), {"build": build, "time": lambda calls, warm: [seconds] * calls})


def test_measuring_in_turns():
    """How often each is called, and when the machine is."""
    rates = iter(range(100))
    floors = FakeProcess(contenders.floors(), {"rates": lambda calls, count: {"copy": [next(rates), count]}})
    processes = {
        "floors": floors,
        "numpy": process("numpy", 0.2),  # too slow to be timed
        "quick": process("quick", 1e-5),
        "medium": process("medium", 0.03),
        "slow": process("slow", 0.5),
        "not asked for": process("not asked for", 1e-3),
        "wrong": process("wrong", 1e-3, RIGHT | {"y": RIGHT["y"] | {"shape": (3,)}}),
        "broken": process("broken", 1e-3, "it has no build"),
        "dead": process("dead", 1e-3, "cannot be sent"),
        "another op": process("another op", 1e-3, ops=("adam",)),
    }
    timed = processes.keys() - {"not asked for"}
    found = measure.measure(DENSE, processes, timed, measure.Effort(2.0, 8, 3))
    assert {name: (len(each["seconds"]), each["turns"]) for name, each in found["contenders"].items()} == {
        "quick": (8 * 200, 8),  # 200 calls a turn, though 0.05 s would hold 5,000
        "medium": (2 * 5, 5),  # 0.5 s for each of 4, of 2 calls and 1 to warm up
        "slow": (1 * 3, 3),  # as few turns as there may be
    }
    assert found["failed"] == {
        "wrong": "wrong: y has shape (3,), expected (2,)",
        "broken": "it has no build",
        "dead": "it died",
    }
    calls = {name: [each[1:] for each in one.asked if each[0] == "time"] for name, one in processes.items()}
    assert calls["quick"] == [(1, False)] + [(200, True)] * 8
    assert calls["medium"] == [(1, False)] + [(2, True)] * 5
    assert calls["slow"] == [(1, False)] + [(1, False)] * 3
    assert calls["numpy"] == [(1, False)]
    assert calls["not asked for"] == calls["wrong"] == calls["broken"] == calls["another op"] == []
    assert floors.asked == [("rates", 1, 1), ("rates", 1, 2)] * 3
    assert found["floors"] == {1: {"copy": [0, 1, 2, 1, 4, 1]}, 2: {"copy": [1, 2, 3, 2, 5, 2]}}
    for name, one in processes.items():
        dropped = name not in ("floors", "broken", "dead", "another op")
        assert (one.asked[-1:] == [("drop",)]) == dropped, name
    assert processes["another op"].asked == []


def test_turns_are_spread_evenly():
    assert [measure._is_due(turn, 3, 8) for turn in range(8)] == [False, False, True, False, False, True, False, True]
    assert [measure._is_due(turn, 8, 8) for turn in range(8)] == [True] * 8


def test_one_that_fails_in_its_turn_leaves_the_others():
    answers = iter([[0.03], "it stopped", "it stopped"])
    processes = {
        "floors": FakeProcess(contenders.floors(), {"rates": {"copy": [1.0]}}, threads=1),
        "numpy": process("numpy", 0.1),
        "stops": FakeProcess(contender("stops"), {"build": RIGHT, "time": lambda *_: next(answers)}),
        "never": FakeProcess(contender("never"), {"build": RIGHT, "time": "it does not start"}),
    }
    found = measure.measure(DENSE, processes, set(processes), measure.Effort(1.0, 2, 1))
    assert {name: len(each["seconds"]) for name, each in found["contenders"].items()} == {"numpy": 2}
    assert found["failed"] == {"stops": "it stopped", "never": "it does not start"}
    assert list(found["floors"]) == [1]


def test_without_a_reference_nothing_is_measured():
    processes = {"floors": FakeProcess(contenders.floors(), {}), "numpy": process("numpy", 1.0, "no memory")}
    with pytest.raises(contenders.ContenderError, match=r"dense 8x9-7: the reference failed: no memory"):
        measure.measure(DENSE, processes, {"numpy"}, measure.QUICK)


def test_a_sweep_has_only_those_that_sweep():
    processes = {
        "floors": FakeProcess(contenders.floors(), {"rates": {}}, threads=1),
        "numpy": process("numpy", 0.01),
        "compiles": process("compiles", 0.01, sweeps=False),
    }
    for sweep in (False, True):
        found = measure.measure(Workload("dense", (8, 9), 7, sweep=sweep), processes, set(processes), measure.QUICK)
        assert ("compiles" in found["contenders"]) == (not sweep)


def test_what_is_wrong_with_results():
    def words(**changes):
        return measure.compare(DENSE, {"y": RIGHT["y"] | changes}, RIGHT)

    limit = workloads.TOLERANCE["float32"]
    assert words() is None
    assert words(sample=np.array([1.0, -2.0 - 1.9 * limit])) is None
    assert "by 1.0e-01 of its largest number, its sum of squares by 0.0e+00" in words(sample=np.array([1.2, -2.0]))
    assert words(squares=5 * (1 + 0.9 * limit)) is None
    assert "its sum of squares by 2.0e-01" in words(squares=6.0)
    assert words(squares=np.nan) is not None
    step = Workload("mlp", (4,))
    assert (
        measure.compare(step, {"exact": [2.0, np.nan]}, {"exact": [2.0, 1.0]}) == "the losses of the first steps are 2, nan, expected 2, 1"
    )
    assert measure.compare(step, {}, {"exact": [2.0]}) == "the losses of the first steps are none, expected 2"


def test_a_start(monkeypatch):
    made = []

    class Started(FakeProcess):
        def __init__(self, of, threads, environment):
            answers = {"first_step": 103.5, "time": [1, 1, 1], "peak_memory": 7}
            super().__init__(of, answers, threads)
            made.append((self, environment))

        def wait_until_ready(self):
            self.asked.append("ready")

        def close(self):
            self.asked.append("closed")

    monkeypatch.setattr(measure, "Process", Started)
    monkeypatch.setattr(measure, "time", SimpleNamespace(time=lambda: 100.0))
    found = measure.start(contender("a"), 3, "mlp", 32, {"A": "b"})
    assert found == ({"seconds": 3.5, "peak_bytes": 7}, None)
    ((one, environment),) = made
    assert (one.threads, environment) == (3, {"A": "b"})
    assert one.asked == ["ready", ("first_step", "mlp", 32), ("time", 3, False), ("peak_memory",), "closed"]


# ------------------------------------------------------------------------------------------------------- a worker


class Steps:
    """A contender in a worker."""

    def __init__(self, threads, *options):
        self.asked = [("made", threads, *options)]

    def kernel(self, workload, arrays):
        self.asked.append((workload, list(arrays)))
        return lambda: [np.full(n + 1, float(n)) for n in range(4)]

    def step(self, network, rows):
        self.asked.append(("step", network.title, [each for each in network.layers if each[0] == "dropout"], rows))
        losses = iter(range(100))
        return lambda: next(losses)

    numpy = staticmethod(np.asarray)

    def rates(self, calls, threads):
        return {"copy": [calls, threads]}


@pytest.fixture
def working(monkeypatch):
    monkeypatch.setattr(worker.importlib, "import_module", lambda name: SimpleNamespace(Contender=Steps))
    return worker.Worker("a", 2, "b")


def test_a_worker(working, monkeypatch):
    found = working.build(DENSE)
    assert list(found) == ["y", "dx", "dweight", "dbias"]
    assert [each["shape"] for each in found.values()] == [(1,), (2,), (3,), (4,)]
    assert [(each["largest"], each["squares"]) for each in found.values()] == [(0, 0), (1, 2), (2, 12), (3, 36)]
    assert working.build(Workload("mlp", (5,))) == {"exact": [0, 1, 2]}
    assert working.build(Workload("digits-cnn", (6,))) == {"exact": [0, 1, 2], "random": [0, 1, 2]}
    assert working.contender.asked == [
        ("made", 2, "b"),
        (DENSE, ["x", "weight", "bias", "dy"]),
        ("step", "MLP 3-300-3", [], 5),
        ("step", "digits CNN", [("dropout", 0.0)], 6),
        ("step", "digits CNN", [("dropout", 0.25)], 6),
    ]
    clock = iter(range(100))
    monkeypatch.setattr(worker.time, "perf_counter", lambda: next(clock))
    assert working.time(3, False) == [1, 1, 1]
    assert working.run() == 6
    assert working.time(2, True) == [1, 1]
    assert working.run() == 10
    assert working.rates(4, 5) == {"copy": [4, 5]}
    working.drop()
    assert working.run is None


def test_a_worker_prefers_a_peers_own_ways(working):
    asked = working.contender.asked = []
    step = working.contender.step
    working.contender.tuned_step = lambda network, rows: asked.append("tuned") or step(network, rows)
    working.build(Workload("digits-cnn", (6,)))
    assert [each if isinstance(each, str) else each[0] for each in asked] == ["tuned", "step", "tuned", "step"]
    asked.clear()
    working.contender.exact_step = lambda network, rows: asked.append("exact") or step(network, rows)
    working.build(Workload("digits-cnn", (6,)))
    assert [each if isinstance(each, str) else each[0] for each in asked] == ["exact", "step", "tuned", "step"]


def test_a_digest():
    array = np.random.default_rng(0).normal(size=(300, 400))
    found = worker.digest(array)
    assert (found["shape"], len(found["sample"])) == ((300, 400), worker.SAMPLE)
    assert found["largest"] == np.abs(array).max()
    assert found["squares"] == pytest.approx((array**2).sum())
    assert set(found["sample"]) < set(array.ravel())
    assert worker.digest(-np.arange(5.0))["largest"] == 4


def test_waiting_until_nothing_runs(monkeypatch):
    """Until a pause costs less than a millisecond of the processor, and not for ever."""
    used, slept = [0.0], []
    costs = iter([0.01, 0.002, 0.0011, 0.0009, 0.0])

    def sleep(seconds):
        slept.append(seconds)
        used[0] += next(costs, 0.5)

    monkeypatch.setattr(worker, "time", SimpleNamespace(process_time=lambda: used[0], sleep=sleep))
    worker.settle()
    assert slept == [0.012] * 4
    slept.clear()
    costs = iter(())
    worker.settle()
    assert len(slept) == 100


# --------------------------------------------------------------------------------------------------- the machine


@pytest.mark.parametrize("threads", [1, 3])
def test_copies_are_copies(threads):
    """Whole, or without some vectors at the ends of the threads' parts, which nobody will notice in 128 MB."""
    source = np.random.default_rng(0).random(9600)
    target = np.full(source.size, np.nan)
    floors.copy(source, target, threads)
    assert np.array_equal(target, source)
    target[:] = np.nan
    floors._stream(source, target, threads)
    missing = np.isnan(target)
    assert missing.sum() <= 2 * threads * floors.WIDTH // 8
    assert np.array_equal(target[~missing], source[~missing])


def test_the_rates_of_the_machine(monkeypatch):
    """By a clock of which each call takes half a second."""
    asked, now = [], iter(np.arange(0, 99, 0.5))
    for name in ("copy", "_stream", "fma32", "fma64"):
        monkeypatch.setattr(floors, name, lambda *arguments, name=name: asked.append((name, *arguments[-2:])))
    monkeypatch.setattr(floors, "COPY", 800)
    monkeypatch.setattr(floors, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    machine = floors.Contender(2)
    assert len(machine.source) == len(machine.target) == 100
    found = machine.rates(2, 3)
    lanes = floors.WIDTH // 4
    fma = 2 * 2 * floors.CHAINS * floors.LOOPS * 3
    assert found == {
        "copy": [3200] * 2,
        "copy_streaming": [3200] * 2,
        "fma_float32": [fma * lanes] * 2,
        "fma_float64": [fma * lanes / 2] * 2,
    }
    assert [name for name, *_ in asked] == ["copy"] * 3 + ["_stream"] * 3 + ["fma32"] * 3 + ["fma64"] * 3
    assert asked[-1][1:] == (3, floors.LOOPS)
    assert asked[0][2] == asked[3][2] == 3
    assert asked[0][1] is machine.target


def test_the_loops_multiply_and_add():
    """From chain k: LOOPS times what the loop does, added up over the chains, is the same in each thread."""
    one, both = floors.fma64(1, 1000), floors.fma64(2, 1000)
    assert one[0] == both[0] == both[1]
    assert floors.fma32(1, 10).dtype == np.float32
    few, more = floors.fma64(1, 1)[0], floors.fma64(1, 2)[0]
    assert few != more


def test_the_process_of_a_peer_reaches_the_worker_alone():
    """Without a module of that name: the worker says so, and nbnet itself was not imported."""
    code = contenders.PEER.replace("main()", "main(); print('numba' in sys.modules, 'nbnet.runtime' in sys.modules, file=sys.stderr)")
    command = [sys.executable, "-c", code, str(contenders.PACKAGE), "no.such.peer", "1"]
    found = subprocess.run(command, capture_output=True, check=True, timeout=100)
    assert pickle.loads(found.stdout) == ("error", "ModuleNotFoundError: No module named 'no'")
    assert found.stderr.split() == [b"False", b"False"]
