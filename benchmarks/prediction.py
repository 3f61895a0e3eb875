"""One image and batches of 64 through a trained network: nbnet, onnxruntime and PyTorch take turns.

python benchmarks/prediction.py [--rounds 100] [--out benchmarks/results/prediction/results.json]    (needs onnx, onnxruntime and torch)

All get the folded network; onnxruntime with one and with two threads, all its optimisations on. Medians of five calls in each turn; before
them a pause, in which the threads of the one before stop spinning, and a call that is not timed. The outputs must agree first.
"""

import argparse
import datetime
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

import nbnet as nb
from nbnet.cli import info
from nbnet.storage import write_json

NETWORKS = {
    "digits": ((8, 8, 1), nb.models.digits),
    "lenet": ((28, 28, 1), nb.models.lenet),
    "five-conv": ((32, 32, 3), nb.models.five_conv),
}
ROWS = (1, 64)
PAUSE = 0.01  # seconds


def to_onnx(model):
    """The bytes of an ONNX model of NCHW images."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        nb.onnx.export(model, path, input_layout="NCHW")
        return path.read_bytes()


def with_onnxruntime(data, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"input": x})[0]


def with_torch(model):
    """The same layers in eager PyTorch, in channels-last memory, without gradients."""
    layers = []
    for layer in model.layers:
        params = {name: torch.tensor(param.value) for name, param in layer.params.items()}
        if isinstance(layer, nb.Conv2D):
            made = torch.nn.Conv2d(layer.input_shape[2], layer.filters, 3, padding=1)
            made.weight.data, made.bias.data = params["weight"].permute(3, 2, 0, 1), params["bias"]
            layers.append(made.to(memory_format=torch.channels_last))
        elif isinstance(layer, nb.Dense):
            made = torch.nn.Linear(*params["weight"].shape)
            made.weight.data, made.bias.data = params["weight"].T.contiguous(), params["bias"]
            layers.append(made)
        elif isinstance(layer, nb.Flatten):
            layers.append(Rows())
        else:
            of_torch = {"MaxPool2D": torch.nn.MaxPool2d(2), "ReLU": torch.nn.ReLU(inplace=True), "Dropout": torch.nn.Identity()}
            pooled = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
            layers.append(of_torch.get(type(layer).__name__, pooled))
    network = torch.nn.Sequential(*layers).eval()

    def predict(x):
        with torch.inference_mode():
            return network(x).numpy()

    return predict


class Rows(torch.nn.Module):
    """Flatten in the order of NHWC."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)


def prepare(model, x):
    """A predictor and a jitted function of the model, and how many seconds it takes to make and first call each."""
    made, seconds = [], {}
    for name, make in {"nb.Predictor": lambda: nb.Predictor(model).predict, "nb.compile": lambda: nb.compile(model)}.items():
        began = time.perf_counter()
        made.append(make())
        made[-1](x)
        seconds[name] = time.perf_counter() - began
    return made, seconds


def contenders(model, x, predictor, compiled):
    """What predicts x, without arguments, by name."""
    folded = nb.fold_batch_norm(model)
    nchw = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    tensor = torch.tensor(nchw).to(memory_format=torch.channels_last)
    data, eager = to_onnx(folded), with_torch(folded)
    sessions = {f"onnxruntime, {n} thread{'s' * (n > 1)}": with_onnxruntime(data, n) for n in (1, 2)}
    onnx.checker.check_model(data)
    return {
        "nb.Predictor": lambda: predictor(x),
        "nb.compile": lambda: compiled(x),
        "model.predict": lambda: model.predict(x),
        **{name: (lambda session=session: session(nchw)) for name, session in sessions.items()},
        "PyTorch": lambda: eager(tensor),
    }


def measure(model, x, prepared, rounds):
    """Median microseconds by contender, with the 10th and 90th percentiles of the ratio to the first."""
    runs, expected = contenders(model, x, *prepared), model.predict(x)
    for name, run in runs.items():
        for _ in range(5):
            y = run()
        assert np.abs(y - expected).max() <= 1e-4 * np.abs(expected).max(), name
    times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            time.sleep(PAUSE)
            run()
            calls = []
            for _ in range(5):
                began = time.perf_counter()
                run()
                calls.append(time.perf_counter() - began)
            times[name].append(1e6 * np.median(calls))
    first = np.array(times["nb.Predictor"])
    return {name: (np.median(of_name), *np.percentile(np.array(of_name) / first, (10, 50, 90))) for name, of_name in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", help=", ".join(NETWORKS))
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the figures there, too")
    options = parser.parse_args()
    torch.set_num_threads(2)
    found, seconds = [], {}
    for name in options.networks or NETWORKS:
        shape, make = NETWORKS[name]
        model = make()
        model.build(shape, seed=0)
        model.forward(np.random.default_rng(1).normal(size=(64, *shape)).astype(np.float32), train=True)
        images = {rows: np.random.default_rng(rows).normal(size=(rows, *shape)).astype(np.float32) for rows in ROWS}
        prepared, seconds[name] = prepare(model, images[1])
        for rows, x in images.items():
            print(f"\n{name}, {rows} image{'s' * (rows > 1)}\n\n| | µs | relative to nb.Predictor |\n|---|---|---|")
            for contender, (median, low, middle, high) in measure(model, x, prepared, options.rounds).items():
                print(f"| {contender} | {median:.1f} | {middle:.2f} ({low:.2f} to {high:.2f}) |", flush=True)
                found.append({"network": name, "rows": rows, "contender": contender, "us": median, "ratio": [low, middle, high]})
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        versions = {"nbnet": nb.__version__, "onnxruntime": onnxruntime.__version__, "torch": torch.__version__}
        about = {"command": "python benchmarks/prediction.py", "date": str(datetime.date.today()), "cpu": dict(info.facts())["cpu"]}
        write_json(options.out, about | {"versions": versions, "prepared": seconds, "rows": found})


if __name__ == "__main__":
    main()
