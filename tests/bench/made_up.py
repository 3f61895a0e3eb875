"""A run of nbnet bench without measurements: processes that do not start, and times that follow from names."""

import contextlib
import importlib
import zlib
from pathlib import Path
from types import SimpleNamespace

from progress_bar import Bar

from nbnet import cli
from nbnet.bench import contenders, measure, plan
from nbnet.bench.contenders import ContenderError

SPEED = {
    "numpy": 1e9,
    "serial": 2e10,
    "parallel": 7e10,
    "torch": 4e10,
    "torch-kept": 5e10,
    "torch-compile": 6e10,
    "jax": 3e10,
    "tensorflow": 2e8,
}
FLOORS = {"copy": 1e10, "copy_streaming": 1.5e10, "fma_float32": 4e10, "fma_float64": 2e10}
MACHINE = {
    "machine": {"cpu": "a processor", "python": "3", "vector features": "none", "processors": 8, "memory_bytes": 1},
    "versions": {"nbnet": "1"},
}


def factor(*key):
    """From 0.8 to 1.25."""
    return 0.8 + 0.45 * (zlib.crc32(repr(key).encode()) % 1000) / 999


def install(monkeypatch, notes):
    """notes: gets a line for each thing that would have been done."""

    @contextlib.contextmanager
    def processes(members, threads, absent, environments):
        known = {name: [f"{key}={Path(value).name}" for key, value in each.items()] for name, each in environments.items()}
        notes.append(f"processes: {', '.join(each.name for each in members)}; threads {threads}; {known}")
        yield {each.name: threads for each in members}

    def measured(workload, crowd, timed, effort):
        words = [workload.name, f"sweep {workload.sweep}", *crowd, "timed", *sorted(timed), *map(str, vars(effort).values())]
        notes.append(f"measure {', '.join(words)}")
        threads = crowd["floors"]
        samples, failed = {}, {}
        for name in crowd:
            if name not in timed or (name == "numpy" and workload.flops > 1e9) or name == "tensorflow":
                continue
            if name == "jax" and workload.op == "softmax":
                failed[name] = "wrong: y has another shape"
                continue
            one = 1e-5 + workload.flops / SPEED[name] / threads**0.8 * factor(workload.name, name)
            samples[name] = {"seconds": [one * share for share in (1, 1.1, 0.9, 1.02, 1.4)], "turns": 2}
        rates = {count: {name: [value * count**0.5, value * 1.1 * count**0.5] for name, value in FLOORS.items()} for count in {1, threads}}
        return {"contenders": samples, "failed": failed, "floors": rates}

    def start(contender, threads, op, rows, environment):
        given = [f"{key}={Path(value).name}" for key, value in environment.items()]
        notes.append(f"start {contender.name}, threads {threads}, {op}, {rows}, {given}")
        if contender.name == "tensorflow":
            return None, "ImportError: no"
        return {"seconds": 3 * factor(contender.name, len(notes)), "peak_bytes": 3e8 * factor(contender.name)}, None

    monkeypatch.setattr(plan, "_processes", processes)
    monkeypatch.setattr(measure, "measure", measured)
    monkeypatch.setattr(measure, "start", start)
    everything = SimpleNamespace(find_spec=lambda name: name)  # is installed
    monkeypatch.setattr(contenders, "importlib", SimpleNamespace(import_module=importlib.import_module, util=everything))
    monkeypatch.setattr(cli.bench, "machine", lambda plan: MACHINE)
    monkeypatch.setattr(cli.bench, "processors", lambda: 8)
    monkeypatch.setattr(cli.bench, "Bar", Bar)


class FakeProcess:
    """Answers as a contender's process does, and counts what it is asked."""

    def __init__(self, contender, answers, threads=2):
        self.contender, self.threads, self.answers, self.asked = contender, threads, answers, []

    def call(self, method, *arguments):
        self.send(method, *arguments)
        return self.receive()

    def send(self, method, *arguments):
        self.asked.append((method, *arguments))
        answer = self.answers.get(method)
        self.answer = answer(*arguments) if callable(answer) else answer
        if self.answer == "cannot be sent":
            raise ContenderError("it died")

    def receive(self):
        if isinstance(self.answer, str):
            raise ContenderError(self.answer)
        return self.answer

    attempt = contenders.Process.attempt
