"""Write the figures of README.md and of docs/ from the committed results: python benchmarks/readme.py

The parts between the marks are written; tests/test_figures.py compares them, and looks up every other figure of these pages in the results.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from nbnet.bench.report import read_runs
from nbnet.bench.tables import digits, seconds
from nbnet.layers.batchnorm.presets import PRESETS
from nbnet.storage import write_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))  # also for tests, which load this file
import demo_pages  # noqa: E402

FOLDER = ROOT / "benchmarks" / "results"
RESULTS, AVX2 = FOLDER / "cpu", FOLDER / "avx2"  # of benchmarks/measure.py
OURS = "parallel"
MARKED = re.compile(r"(<!-- benchmarks/readme.py writes (\w+) from here -->\n)(.*?)(<!-- to here -->\n)", re.DOTALL)
NAMES = {  # one name per network, everywhere
    "five-conv batch 128": "five-conv, batch 128",
    "five-conv batch 32": "five-conv, batch 32",
    "mnist-cnn batch 64": "MNIST CNN, batch 64",
    "digits-cnn batch 64": "digits CNN, batch 64",
    "mlp batch 1,000": "MLP, batch 1,000",
    "mobile batch 64": "mobile, batch 64",
    "start to the end of the first step": "process start to first step",
    "the same with nothing compiled": "the same, nothing compiled yet",
}
SHORT = ("five-conv batch 128", "mnist-cnn batch 64", "digits-cnn batch 64", "mobile batch 64", "batchnorm 128x32x32x64")
SHORT += ("dropout 128x32x32x64", "start to the end of the first step", "the same with nothing compiled", "peak memory")
OF_PREDICTION = {"digits": "digits CNN", "lenet": "MNIST CNN", "five-conv": "five-conv"}


def stored(name: str) -> Any:
    """A result file that is not a report of nbnet bench."""
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


# --------------------------------------------------------------------------------------------------------- README


def special(report: dict[str, Any]) -> list[str]:
    """Five lines, each with a figure."""
    lines = {line["what"]: line for line in report["summary"]}
    times = {(row["network"], row["rows"], row["contender"]): row for row in stored("prediction/results.json")["rows"]}
    ours, theirs = times["digits", 1, "nb.Predictor"], times["digits", 1, "onnxruntime, 1 thread"]
    found = []
    if dropout := lines.get("dropout 128x32x32x64"):
        best = dropout["ratios"][dropout["best_peer"]]
        found.append(
            f"- **Dropout stores no mask.** Backward computes it again. "
            f"Forward and backward take {best:.2f} times as long in the fastest other framework."
        )
    found += [
        f"- **A trained network is a jitted function**, for your own loops. The digits CNN classifies an image in {ours['us']:.2f} µs;"
        f" onnxruntime takes {theirs['ratio'][1]:.2f} times as long.",
        f"- **Batch normalisation in {len(PRESETS)} dialects**, in [one layer](docs/batchnorm.md), tested against the originals.",
        "- **The same bits** on one thread and on 16, after a resume, and with every optimisation on or off, except fusion.",
    ]
    if start := lines.get("start to the end of the first step"):
        found.append(
            f"- **A process starts, builds a network and trains a step in {digits(start['nbnet'])} s.** The fastest other framework takes "
            f"{start['ratios'][start['best_peer']]:.2f} times as long."
        )
    return found


def peers(report: dict[str, Any], lines: list[dict[str, Any]]) -> list[str]:
    """A table with a row for each line of a summary."""
    titles = report["titles"]
    names = [name for name in report["peers"] if any(name in line["ratios"] for line in lines)]
    rows = [
        "| slowdown relative to nbnet | nbnet | " + " | ".join(titles[name] for name in names) + " | nbnet's share of the floor |",
        "|---|---|" + "---|" * (len(names) + 1),
    ]
    for line in lines:
        ratios = [_ratio(line["ratios"].get(name), line.get("ratio_each", []) if name == line["best_peer"] else None) for name in names]
        share = "" if line["of_floor"] is None else f"{100 * line['of_floor']:.0f} %"
        name = NAMES.get(line["what"], line["what"])
        ours = f"{digits(line['nbnet'])} {line['unit']}{_range([digits(value) for value in line.get('nbnet_each', ())])}"
        rows.append(f"| {name} | {ours} | {' | '.join(ratios)} | {share} |")
    return rows


def _range(each: list[str]) -> str:
    """ " (2.71 to 2.85)" of several runs; nothing if they agree."""
    return f" ({min(each, key=_number)} to {max(each, key=_number)})" if len(set(each)) > 1 else ""


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _ratio(value: float | None, each: list[float] | None) -> str:
    """each: of the best peer, its ratio in each run."""
    if value is None or each is None:
        return "" if value is None else f"{value:.2f}"
    return f"**{value:.2f}**{_range([f'{one:.2f}' for one in each])}"


def _origin(report: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    threads = f"{report['threads']} thread{'s' if report['threads'] > 1 else ''}"
    runs = report.get("runs", 1)
    said = (
        f"Medians of {runs} runs of `{report['command']}`, with their range" if runs > 1 else f"Medians of one run of `{report['command']}`"
    )
    return f"{said} ({report['date']}; {report['machine']['cpu']}, {threads}; {versions})."


# ------------------------------------------------------------------------------------------------- docs/performance.md


KERNELS = ("five-conv batch 128", "five-conv batch 32", *SHORT[1:4], "mlp batch 1,000", "conv2d, geometric mean of 15", *SHORT[4:6])
KERNELS += ("max-pool 128x32x32x64", "dense 64x3136-128", "softmax 4096x100", "adam 1000000", *SHORT[6:])


def chosen(report: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    """The table of some rows, and the origin of the figures."""
    lines = {line["what"]: line for line in report["summary"]}
    return [*peers(report, [lines[what] for what in names if what in lines]), "", _origin(report)]


def _floors(reports: dict[str, dict[str, Any]]) -> list[str]:
    lines = ["| | threads | float32 multiply-adds | float64 | copy |", "|---|---|---|---|---|"]
    for name, report in reports.items():
        for threads, floors in report["floors"].items():
            rates = [digits(floors[key]["median"]) for key in ("fma_float32", "fma_float64", "copy_streaming")]
            lines.append(f"| {name} | {threads} | {rates[0]} GFLOP/s | {rates[1]} GFLOP/s | {rates[2]} GB/s |")
    return lines


def _prediction() -> list[str]:
    found = stored("prediction/results.json")
    names = list(dict.fromkeys(row["contender"] for row in found["rows"]))
    lines = ["| µs (slowdown relative to nb.Predictor) | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for network, rows in dict.fromkeys((row["network"], row["rows"]) for row in found["rows"]):
        of = {row["contender"]: row for row in found["rows"] if (row["network"], row["rows"]) == (network, rows)}
        cells = [f"{digits(of[name]['us'])}" + (f" ({of[name]['ratio'][1]:.2f})" if name != names[0] else "") for name in names]
        lines.append(f"| {OF_PREDICTION[network]}, {rows} image{'s' * (rows > 1)} | {' | '.join(cells)} |")
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return [*lines, "", f"Medians of `{found['command']}` ({found['date']}; {found['cpu']}, 2 threads; {versions})."]


def _augmentation() -> list[str]:
    found = stored("augmentation/results.json")
    lines = ["| transforms | time | share of the training step |", "|---|---|---|"]
    lines += [f"| {row['transforms']} | {seconds(row['ms'] / 1000)} | {row['share'][1]:.1f} % |" for row in found["rows"]]
    return [*lines, "", f"Medians of `{found['command']}` ({found['date']}; {found['cpu']}, 2 threads)."]


def _printed(name: str) -> dict[str, list[float]]:
    """What a command printed, by seed: see benchmarks/commands.py."""
    return stored("commands/results.json")["commands"][name]["values"]


def _accuracies() -> list[str]:
    """Of nbnet train."""
    animals = "a folder: 300 images each of cats, dogs and frogs of CIFAR-10"
    rows = {
        "digits": ("digits", "default"),
        "folder": (animals, "default"),
        "folder-plain": (animals, "`--augment none --label-smoothing 0 --epochs 20 --model five-conv`"),
    }
    lines = ["| data | options | test accuracy |", "|---|---|---|"]
    for name, (data, options) in rows.items():
        if name in stored("commands/results.json")["commands"]:
            each = _printed(name)["accuracy, %"]
            lines.append(f"| {data}, {len(each)} seeds | {options} | {_spread([value / 100 for value in each])} |")
    return [*lines, "", "Means over the seeds, with the lowest and the highest, from `python benchmarks/commands.py`."]


def _estimators() -> list[str]:
    found = _printed("sklearn")
    lines = ["| | accuracy | processor time |", "|---|---|---|"]
    names = dict.fromkeys(key.rpartition(", ")[0] for key in found)
    lines += [f"| {name} | {found[f'{name}, %'][0]:.1f} % | {found[f'{name}, s'][0]:.2f} s |" for name in names]
    return [*lines, "", "From `python examples/sklearn_digits.py`: accuracy is the mean of five splits, time the median of `fit`."]


def _compiled() -> list[str]:
    """How long prepared predictions take, and their preparation."""
    found = stored("prediction/results.json")
    times = {(row["network"], row["rows"]): row["us"] for row in found["rows"] if row["contender"] == "nb.Predictor"}
    taken = [seconds for of in found.get("prepared", {}).values() for seconds in of.values()]
    return [
        f"- A predictor classifies an image with the digits CNN in {digits(times['digits', 1])} µs, and with the MNIST CNN in "
        f"{digits(times['lenet', 1])} µs.",
        *([f"- Preparing a model takes up to {max(taken):.1f} s."] if taken else []),
        f"- [inside_numba.py](../examples/inside_numba.py) calls a network 100,000 times in one jitted loop, in "
        f"{digits(_printed('inside-numba')['loop, s'][0])} s.",
    ]


def _runs(**values: Any) -> list[dict[str, Any]]:
    runs = stored("airbench/results.json")
    return [run for run in runs if all(run[key] == value for key, value in values.items())]


def _spread(values: list[float]) -> str:
    """The mean, and where there are several values the least and the largest."""
    mean, least, most = (f"{100 * value:.2f}" for value in (sum(values) / len(values), min(values), max(values)))
    return f"{mean} %" + (f" ({least} to {most})" if len(values) > 1 else "")


def _airbench() -> list[str]:
    lines = ["| | test accuracy | averaged over six views | training | peak memory |", "|---|---|---|---|---|"]
    for epochs in (3, 10):
        for name, title in (("nbnet", "nbnet"), ("torch", "PyTorch")):
            runs = _runs(epochs=epochs, name=name, without=None)
            accuracy, views = (_spread([run[key] for run in runs]) for key in ("accuracy", "views"))
            took, memory = (sorted(run[key] for run in runs)[len(runs) // 2] for key in ("seconds", "MiB"))
            seeds = f"{len(runs)} seed{'s' * (len(runs) > 1)}"
            lines.append(f"| {title}, {epochs} epochs, {seeds} | {accuracy} | {views} | {took:.0f} s | {memory:,.0f} MiB |")
    return lines


def _airbench_parts() -> list[str]:
    """What each part of the recipe adds."""
    whole = [run for run in _runs(epochs=3, name="nbnet", without=None) if run["seed"] < 3]
    lines = [
        "| without | test accuracy | the part adds |",
        "|---|---|---|",
        f"| nothing | {_spread([run['accuracy'] for run in whole])} | |",
    ]
    for part in ("whitening", "bias scale", "flip", "translation", "smoothing", "lookahead"):
        runs = _runs(epochs=3, name="nbnet", without=part)
        gain = 100 * (sum(run["accuracy"] for run in whole) / len(whole) - sum(run["accuracy"] for run in runs) / len(runs))
        lines.append(
            f"| {part} | {_spread([run['accuracy'] for run in runs])} | {gain:+.1f} points |".replace("+0.0", "0.0").replace("-0.0", "0.0")
        )
    return lines


def _ranks() -> list[str]:
    """Training on two ranks: measured speed, what is sent, and what the model of its cost predicts for more of them."""
    found = stored("distributed/distributed.json")
    lines = [f"| {found['rows']} rows, images per second | five-conv | airbench |", "|---|---|---|"]
    titles = {
        "one process": "nbnet, one process, 2 threads",
        "two ranks": "nbnet, 2 ranks x 1 thread",
        "DDP": "PyTorch DDP, 2 ranks x 1 thread",
    }
    for way, title in titles.items():
        lines.append(f"| {title} | {' | '.join(_rate(found, model, way) for model in ('five-conv', 'airbench'))} |")
    steps = {model: found["steps"][model]["two ranks"][0] for model in ("five-conv", "airbench")}
    lines += ["", "| a step on 2 ranks, each sends | five-conv | airbench |", "|---|---|---|"]
    lines.append(f"| messages | {' | '.join(str(step['messages']) for step in steps.values())} |")
    lines.append(f"| kB | {' | '.join(digits(step['bytes'] / 1e3) for step in steps.values())} |")
    shares = [_median([one["communication"] / one["seconds"] for one in found["steps"][model]["two ranks"]]) for model in steps]
    lines.append(f"| share of the step spent sending or waiting | {' | '.join(f'{100 * share:.1f} %' for share in shares)} |")
    return lines


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _rate(found: dict[str, Any], model: str, way: str) -> str:
    rates = sorted(found["rows"] / one["seconds"] for one in found["steps"][model][way])
    return f"{_median(rates):,.0f} ({rates[0]:,.0f} to {rates[-1]:,.0f})"


def _scaling() -> list[str]:
    """Predicted efficiencies."""
    found, ranks = stored("distributed/distributed.json"), [2**i for i in range(10)]
    fit = found["fit"]
    lines = [
        f"{1e6 * fit['latency']:.2f} µs and {1e9 * fit['per_byte']:.3f} ns per byte fit messages of 8 bytes to 8 MB best on this machine.",
        "For networks we assume",
        " and ".join([f"{1e6 * a:g} µs and {1e9 * b:g} ns ({name})" for name, (a, b) in found["networks"].items()]) + ".",
        "",
        "| predicted efficiency, % | on 8 ranks | 64 | 512 |",
        "|---|---|---|---|",
    ]
    kinds = {"weak": f"{found['rows']} rows per rank", "strong": f"{8 * found['rows']:,} rows in all"}
    for model, of_model in found["predicted"].items():
        for kind, curves in of_model.items():
            for network, values in curves.items():
                cells = [f"{100 * values[ranks.index(n)]:.0f}" for n in (8, 64, 512)]
                lines.append(f"| {model}, {kinds[kind]}, {network} | {' | '.join(cells)} |")
    return lines


def _few(growths: dict[str, str]) -> list[str]:
    chosen = ("five-conv, an image", "digits CNN, an image", "conv2d forward 64-64, a pixel", "five-conv batch 32, threads")
    chosen += ("conv2d forward 128x32x32x64-64, threads", "batchnorm 128x32x32x64, threads", "dropout 128x32x32x64, threads")
    rows = [f"| {what} | {text} |" for what, text in growths.items() if what.startswith(chosen)]
    return ["| what | time |", "|---|---|", *rows]


def _elsewhere(report: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """nbnet's time and its fastest peer, with all instructions and with AVX2."""
    first, second = ({line["what"]: line for line in each["summary"] if line["best_peer"]} for each in (report, other))
    lines = ["| | nbnet, AVX-512 | nbnet, AVX2 | fastest peer, AVX-512 | fastest peer, AVX2 |", "|---|---|---|---|---|"]
    for what, line in second.items():
        if what in first:
            pair = (first[what], line)
            times = [f"{digits(each['nbnet'])} {each['unit']}" for each in pair]
            best = [f"{each['ratios'][each['best_peer']]:.2f}, {report['titles'][each['best_peer']]}" for each in pair]
            lines.append(f"| {NAMES.get(what, what)} | {' | '.join(times + best)} |")
    limited = "NUMBA_CPU_NAME" in other["command"]
    where = (
        "The same machine, with nbnet and all peers limited to AVX2"
        if limited
        else "Another machine, without AVX-512, on the code of its date"
    )
    how = "[Benchmarks](../benchmarks/README.md#without-avx-512) describes how to limit peers, and what cannot be limited."
    return [f"{where}. {how}", "", *lines, "", _origin(other)]


# ------------------------------------------------------------------------------------------------------- all figures


def _reached(reports: dict[str, dict[str, Any]]) -> list[str]:
    measured = {name: {row["workload"]: row for row in _rows(report)} for name, report in reports.items()}
    lines = [
        "| | counted | " + " | ".join(f"{name} | share of the floor" for name in reports) + " |",
        "|---|---|" + "---|---|" * len(reports),
    ]
    for workload, row in next(iter(measured.values())).items():
        if row["sweep"]:
            continue
        cells = []
        for rows in measured.values():
            if workload not in rows:
                cells.append(" | ")
                continue
            ours = rows[workload]["contenders"][OURS]
            rate = f"{digits(ours['gflops'])} GFLOP/s" if _by_arithmetic(row) else f"{digits(ours['gbs'])} GB/s"
            cells.append(f"{seconds(ours['median'])}, {rate} | {100 * ours['of_floor']:.0f} %")
        counted = f"{digits(row['gflop'] * 1e3)} MFLOP" if _by_arithmetic(row) else f"{digits(row['gigabytes'] * 1e3)} MB"
        lines.append(f"| {NAMES.get(workload, workload)} | {counted} | {' | '.join(cells)} |")
    return lines


def _by_arithmetic(row: dict[str, Any]) -> bool:
    """Whether arithmetic takes longer than traffic, if a byte takes as long as about five operations."""
    return row["gflop"] > 5 * row["gigabytes"]


def _rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in report["results"] if row["threads"] == report["threads"] and OURS in row["contenders"]]


def _growth(reports: dict[str, dict[str, Any]]) -> list[str]:
    each = [_growths(report) for report in reports.values()]
    lines = [f"| {what} | {' | '.join(growths.get(what, '') for growths in each)} |" for what in each[0]]
    return ["| | " + " | ".join(reports) + " |", "|---|" + "---|" * len(reports), *lines]


def _growths(report: dict[str, Any]) -> dict[str, str]:
    """Costs by what grows."""
    found = {}
    batches: dict[str, dict[int, float]] = defaultdict(dict)
    for row in _rows(report):
        rest = "x".join(map(str, row["shape"][1:])) + (f"-{row['outputs']}" if row["outputs"] else "")
        batches[" ".join(filter(None, (row["op"], row["part"], rest)))][row["shape"][0]] = row["contenders"][OURS]["median"]
    for name, times in batches.items():
        if len(times) > 1:
            name = name.replace("digits-cnn", "digits CNN")
            found[f"{name}, an image of a batch of"] = "; ".join(f"{n}: {seconds(times[n] / n)}" for n in sorted(times))
    for part in ("forward", "backward_data", "backward_weights"):
        same = [row for row in _rows(report) if row["part"] == part and row["shape"][0] == 128]
        pixels = {row["shape"][1]: row for row in same if (row["shape"][3], row["outputs"]) == (64, 64)}
        cost = {size: row["contenders"][OURS]["median"] / math.prod(row["shape"][:3]) for size, row in pixels.items()}
        found[f"conv2d {part} 64-64, a pixel of images of"] = "; ".join(f"{n} x {n}: {digits(cost[n] * 1e9)} ns" for n in sorted(cost))
        channels = {f"{row['shape'][3]}-{row['outputs']}": row for row in same if row["shape"][1] == (32 if row["shape"][3] < 8 else 8)}
        cost = {name: row["contenders"][OURS]["gflops"] for name, row in channels.items()}
        found[f"conv2d {part}, operations of the definition, channels"] = "; ".join(
            f"{name}: {digits(cost[name])} GFLOP/s" for name in sorted(cost, key=len)
        )
    for row in report["results"]:
        if row["threads"] != report["threads"] and OURS in row["contenders"]:
            main = next(other for other in _rows(report) if other["workload"] == row["workload"])
            times = {each["threads"]: each["contenders"][OURS]["median"] for each in (row, main)}
            found[f"{row['workload']}, threads"] = "; ".join(f"{n}: {seconds(times[n])}" for n in sorted(times))
    return found


# --------------------------------------------------------------------------------------------------------- the files


def written(report: dict[str, Any], other: dict[str, Any]) -> dict[str, list[str]]:
    """The lines between the marks, by the name in them. other: the report of another machine."""
    both = {"AVX-512": report, "AVX2": other}
    return {
        "special": special(report),
        "speed": chosen(report, SHORT),
        "kernels": chosen(report, KERNELS),
        "everything": [*peers(report, report["summary"]), "", _origin(report)],
        "prediction": _prediction(),
        "augmentation": _augmentation(),
        "floors": _floors(both),
        "airbench": _airbench(),
        "airbench_parts": _airbench_parts(),
        "growth": _few(_growths(report)),
        "elsewhere": _elsewhere(report, other),
        "accuracies": _accuracies(),
        "estimators": _estimators(),
        "compiled": _compiled(),
        "reached": _reached(both),
        "growths": _growth(both),
        "ranks": _ranks(),
        "scaling": _scaling(),
        **{name: make() for name, make in demo_pages.TABLES.items()},
    }


def rewritten(report: dict[str, Any], other: dict[str, Any]) -> dict[Path, str]:
    """The expected contents of all pages with marks."""
    parts = written(report, other)
    pages = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))}

    def filled(found: re.Match[str]) -> str:
        return found[1] + "\n" + "\n".join(parts[found[2]]) + "\n\n" + found[4]

    return {path: MARKED.sub(filled, text) for path, text in pages.items() if MARKED.search(text)}


UNITS = r"(?:%|ms|µs|ns|s|GFLOP/s|GB/s|MiB|MB)(?!\w)"


def measured(report: dict[str, Any], other: dict[str, Any]) -> set[tuple[float, str]]:
    """Every figure of the tables with its unit; a number without one is a ratio."""
    found = set()
    for name, lines in written(report, other).items():
        for number, unit in re.findall(rf"(?<![\w.-])(\d[\d,]*(?:\.\d+)?)(?: ({UNITS}))?", "\n".join(lines)):
            if unit or "." in number:
                found.add((float(number.replace(",", "")), unit or ("µs" if name == "prediction" else "times")))
    for row in stored("prediction/results.json")["rows"]:
        found.add((row["ratio"][1], "times"))
    return found


if __name__ == "__main__":
    for path, text in rewritten(read_runs(RESULTS), read_runs(AVX2)).items():
        write_file(path, text.encode())
