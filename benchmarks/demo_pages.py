"""Run the demonstrations, and keep what their pages show: python benchmarks/demo_pages.py [NAMES] [--images FOLDER]

Writes results/demos/NAME.json, and the pictures that pages use into docs/images. --images is CIFAR-10 as images: FOLDER/train/cat/*.jpg
and so on. Then cifar-cnn also runs on 9,000 of them, with three seeds. The functions below make the tables of readme.py.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS, IMAGES = ROOT / "benchmarks" / "results" / "demos", ROOT / "docs" / "images"
NAMES = ("deep-tanh", "convergence", "cifar-cnn", "dropout-overfit", "feature-scaling", "moving-average")
ON_IMAGES, SEEDS, OF_CLASS = "cifar-cnn-on-cifar10", 3, {"train": 900, "test": 200}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"{', '.join(NAMES)} (default: all)")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="CIFAR-10 as images")
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name in options.names or NAMES:
            demo(name, work, name)
            for path in IMAGES.glob(f"{name}-*.png"):
                shutil.copy(work / name / path.name.removeprefix(f"{name}-"), path)
        if options.images is not None:
            for part, count in OF_CLASS.items():
                for kind in (options.images / part).iterdir():
                    (work / "images" / part / kind.name).mkdir(parents=True)
                    for path in sorted(kind.iterdir())[:count]:
                        shutil.copy(path, work / "images" / part / kind.name)
            demo("cifar-cnn", work / "more", ON_IMAGES, "--data", str(work / "images"), "--seeds", str(SEEDS))


def demo(name, out, result, *options):
    subprocess.run([sys.executable, "-m", "nbnet", "demo", name, "--out", str(out), *options], cwd=ROOT, check=True)
    found = (out / name / "results.json").read_text(encoding="utf-8").replace(f"{out.parent}/", "")  # no path of this machine
    (RESULTS / f"{result}.json").write_text(found, encoding="utf-8")


# -------------------------------------------------------------------------------------------------------- the tables


def figures(name):
    """What a demonstration has written: numbers over its seeds, as nbnet.demos.drawing.spread makes them."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["figures"]


def plus_minus(values, percent=False):
    """ "0.123 ± 0.010", or "97.2 ± 0.8 %": mean and standard deviation over the seeds, with two digits of the deviation."""
    mean, deviation = values["mean"], values["deviation"]
    if percent:
        return f"{100 * mean:.1f} ± {100 * deviation:.1f} %"
    if not deviation or abs(mean) < 1e-3:
        return f"{mean:.3g} ± {deviation:.1g}" if deviation else f"{mean:.3g}"
    places = max(0, 1 - math.floor(math.log10(deviation)))
    return f"{mean:,.{places}f} ± {deviation:,.{places}f}"


def ahead(first, second):
    """At how many seeds the first is lower."""
    truths = [a < b for a, b in zip(first["seeds"], second["seeds"])]
    return f"{sum(truths)} of {len(truths)}"


def table(titles, rows):
    return [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def deep_tanh():
    found = figures("deep-tanh")
    ways = [found["without"], found["with"]]

    def shares(way):
        return ", ".join(f"{100 * layer['mean']:.0f}" for layer in way["saturated_share_by_layer"]) + " %"

    rows = [
        [f"test loss after {found['steps']} steps", *(plus_minus(way["test_loss"]) for way in ways)],
        ["the same, if the network always predicts the mean of y", plus_minus(found["test_loss_of_the_mean"]), ""],
        [
            "units of the last layer with one output for every x",
            *(f"{100 * way['still_share_by_layer'][-1]['mean']:.0f} %" for way in ways),
        ],
        ["saturated outputs of layers 1 to 8", *map(shares, ways)],
    ]
    return table(["", "without batch norm", "with batch norm"], rows)


def convergence():
    found, rows = figures("convergence"), []
    for start, title, epochs in (("tutorial", "N(0, 1²), the tutorial's", (200, 1000, 4000, 10000)), ("small", "N(0, 0.01²)", (200, 2000))):
        without, normed = (found[start][way]["train_loss_at_epoch"] for way in ("without", "with"))
        for epoch in map(str, epochs):
            cells = [f"{int(epoch):,}", plus_minus(without[epoch]), plus_minus(normed[epoch]), ahead(normed[epoch], without[epoch])]
            rows.append([title if epoch == "200" else "", *cells])
    return table(["weights and biases from", "epochs", "without batch norm", "with batch norm", "seeds at which batch norm is lower"], rows)


def cifar_cnn(name="cifar-cnn"):
    networks = figures(name)["networks"]
    rows = [["test accuracy", *(plus_minus(each["test_accuracy"], percent=True) for each in networks.values())]]
    for key, title in (("test_loss", "test loss"), ("training_loss", "training loss, nothing dropped")):
        rows.append([title, *(plus_minus(each[key]) for each in networks.values())])
    plain = networks["plain"]["test_loss"]
    lower = ["" if each["test_loss"] is plain else ahead(each["test_loss"], plain) for each in networks.values()]
    return table(["", *networks], [*rows, ["seeds at which the test loss is lower than plain", *lower]])


def dropout_overfit():
    rates = figures("dropout-overfit")["rates"]
    rows = []
    for rate, each in rates.items():
        cells = [plus_minus(each[key]) for key in ("training_loss", "test_loss", "slope", "slope_of_average_weights")]
        rows.append([rate, *cells, "" if rate == "0" else ahead(each["test_loss"], rates["0"]["test_loss"])])
    titles = ["p", "training loss", "test loss", "slope", "slope with average weights", "seeds with a lower test loss than p = 0"]
    return table(titles, rows)


def averaging():
    rows = []
    for name, each in figures("dropout-overfit")["averaging"].items():
        cells = [plus_minus(each[key]) for key in ("snapshot", "mean_prediction", "average_weights")]
        rows.append([name, *cells, ahead(each["average_weights"], each["snapshot"])])
    return table(
        ["test loss", "a snapshot", "mean prediction of 10", "average weights", "seeds at which these are lower than a snapshot"], rows
    )


def feature_scaling():
    rows = []
    for name, each in figures("feature-scaling").items():
        factor = each.get("times_the_unscaled_rate")
        theory = "" if name == "batch norm" else plus_minus(each["rate_in_theory"])
        cells = [plus_minus(each["largest_rate"]), "1" if factor is None else plus_minus(factor), theory]
        rows.append([name, *cells, plus_minus(each["steps_until_close"])])
    titles = ["", "largest rate", "relative to unscaled", "2 / largest curvature", "steps until within 10 % of the least loss"]
    return table(titles, rows)


def averages():
    found = figures("moving-average")["averages"]
    keys = ("after_10_updates", "updates_until_close", "updates_until_close_after_the_jump")
    rows = [[name, *(_late(each[key]) for key in keys)] for name, each in found.items()]
    return table(["", "after 10 updates", "updates until within 10 %", "the same after the jump"], rows)


def _late(values):
    """200 updates are made: 201 stands for more."""
    return "more than 200" if values["min"] > 200 else plus_minus(values)


def decays():
    found = figures("moving-average")["accuracy_in_training"]
    rows = [[name, *(plus_minus(each[key], percent=True) for key in ("after_10_steps", "after_200_steps"))] for name, each in found.items()]
    return table(["test accuracy", "after 10 steps", "after 200 steps"], rows)


def restored():
    rows = [[name, plus_minus(each, percent=True)] for name, each in figures("moving-average")["restored"].items()]
    return table(["restored", "test accuracy"], rows)


def switches():
    yes = {"training": (1, 1, 1), "gamma, beta fixed": (1, 1, 0), "moving statistics": (0, 0, 1), "freeze()": (0, 0, 0)}
    rows = []
    for name, each in figures("moving-average")["switches"].items():
        moved = [plus_minus(each[key]) for key in ("moving_mean", "gamma")]
        right = [plus_minus(each[key], percent=True) for key in ("dark", "old")]
        rows.append([name, *("yes" if value else "no" for value in yes[name]), *moved, *right])
    titles = ["", "batch statistics", "update", "train gamma, beta", "moving means moved (deviations)", "gamma moved"]
    return table([*titles, "accuracy on dark images", "on bright images"], rows)


def small_batches():
    found = figures("moving-average")["small_batches"]
    rows = [
        [size.replace(", one", " of one"), *(plus_minus(each[size], percent=True) for each in found.values())]
        for size in found["batch norm"]
    ]
    return table(["images per batch", *found], rows)


TABLES = {
    "deep_tanh": deep_tanh,
    "convergence": convergence,
    "cifar_cnn": cifar_cnn,
    "cifar_cnn_on_cifar10": lambda: cifar_cnn(ON_IMAGES),
    "dropout_overfit": dropout_overfit,
    "averaging": averaging,
    "feature_scaling": feature_scaling,
    "averages": averages,
    "decays": decays,
    "restored": restored,
    "switches": switches,
    "small_batches": small_batches,
}


if __name__ == "__main__":
    main()
