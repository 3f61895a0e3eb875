"""nbnet train: what it prints and writes."""

import base64
import json
import os
import re
import subprocess

import numpy as np
import pytest
from PIL import Image

from nbnet import datasets, models, storage
from nbnet.cli import results, settings
from nbnet.cli.runs import read_config
from nbnet.datasets import read_images
from nbnet.functional import softmax_forward
from nbnet.training.views import predict_views

from .running import FILES, PICTURES, TINY, arrays, nbnet, one_line_error, picture, process, save


def test_train(pictures, here, capsys):
    assert nbnet("train", "--data", pictures, "--out", "run", *TINY) == 0
    out = capsys.readouterr().out
    assert "data: pictures, 36 training and 9 test images of 8x8x1, 3 classes" in out
    assert "model: digits" in out
    assert "0.conv2d" in out
    assert "  epoch        loss  accuracy   test loss  accuracy     images/s\n" in out
    assert re.findall(r"^ +(\d)/3 +\d\.\d{4} +\S+ % +\d\.\d{4} +\S+ % +[\d,]+$", out, re.MULTILINE) == ["1", "2", "3"]
    wrong = re.search(r"test accuracy: (.*) % \((\d) of 9 wrong\)", out)
    assert wrong
    assert "to use it: nbnet predict run IMAGE..." in out
    assert {path.name for path in (here / "run").iterdir()} == FILES
    history = json.loads((here / "run" / "history.json").read_text(encoding="utf-8"))
    assert list(history) == ["loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds"]
    assert {len(column) for column in history.values()} == {3}
    assert float(wrong[1]) == pytest.approx(100 * history["val_accuracy"][-1], abs=0.01)
    assert int(wrong[2]) == round(9 * (1 - history["val_accuracy"][-1]))
    config = json.loads((here / "run" / "config.json").read_text(encoding="utf-8"))
    assert config | {"checksum": 0, "nbnet": ""} == {
        "nbnet": "",
        "recipe": None,
        "data": str(pictures),
        "data_dir": None,
        "size": [8, 8],
        "checksum": 0,
        "image_shape": [8, 8, 1],
        "class_names": ["left", "right", "top"],
        "model": "digits",
        "epochs": 3,
        "batch_size": 8,
        "lr": 0.02,
        "optimizer": "adamw",
        "weight_decay": 0.3,
        "schedule": "one_cycle",
        "augment": ["crop"],
        "label_smoothing": 0.1,
        "backend": "serial",
        "dtype": "float32",
        "slices": None,
        "wire": None,
        "seed": 0,
    }
    for name in PICTURES:
        with Image.open(here / "run" / name) as image:
            assert min(image.size) > 200
            low, high = image.convert("L").getextrema()
            assert high - low > 100


def test_the_page(pictures, here, capsys):
    """It has the pictures, and the accuracies of the model on both sets, as they are, and the gap between them."""
    assert nbnet("train", "--data", pictures, "--out", "run", *TINY, "--epochs", 9) == 0
    out = capsys.readouterr().out
    text = (here / "run" / "report.html").read_text(encoding="utf-8")
    found = [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]*)"', text)]
    assert found == [(here / "run" / name).read_bytes() for name in PICTURES]
    assert not re.findall(r'(?:href|src)="(?!#|data:)', text)
    (x, y), (x_test, y_test), _ = datasets.from_folder(pictures, (8, 8), 1)
    model = read_config(here / "run").build()
    model.load_weights(here / "run" / "model.safetensors")
    train, test = (100 * (model.predict(images).argmax(axis=1) == labels).mean() for images, labels in ((x, y), (x_test, y_test)))
    assert f"test accuracy: {test:.2f} % (" in out
    assert f"training accuracy: {train:.2f} %, a gap of {train - test:.2f} points\n" in out
    assert f"Accuracy on the training images, without augmentation: {train:.2f} %. The gap is {train - test:.2f} points." in text
    assert ("usually means overfitting" in text) == (train - test > 10)
    for label, name in enumerate(("left", "right", "top")):
        right = (model.predict(x_test).argmax(axis=1) == y_test)[y_test == label].mean()
        assert re.search(rf"<li>{name}: precision [\d.]+ %, recall {100 * right:.2f} %, F1 [\d.]+ %, 3 test images</li>", text)


def test_the_page_of_a_model_that_has_overfitted(here, rng):
    """The hint, and the accuracy of evenly spread images where there are many."""
    for name in ("left", "right"):
        (here / "noise" / name).mkdir(parents=True)
        for i in range(20):
            save(here / "noise" / name / f"{i}.png", rng.integers(0, 255, (8, 8), dtype=np.uint8))
    assert nbnet("train", "--data", "noise", "--out", "run", *TINY, "--augment", "none", "--epochs", 30) == 0
    assert "A gap this wide usually means overfitting." in (here / "run" / "report.html").read_text("utf-8")
    assert np.array_equal(results._spread(100_000, 10_000)[[0, -1]], [0, 99_999])
    assert np.array_equal(results._spread(5, 10_000), np.arange(5))


@pytest.mark.parametrize(
    ("colour", "given", "expected"),
    [
        (False, {}, (["crop"], 150, 0.1)),
        (True, {}, (["flip", "crop"], 150, 0.1)),
        (True, {"augment": "none", "epochs": 3, "label_smoothing": 0.0}, ([], 3, 0.0)),
        (True, {"recipe": "airbench", "size": (32, 32)}, (["flip", "translate"], 10, 0.2)),
    ],
)
def test_the_defaults_of_a_folder(here, rng, colour, given, expected):
    for name in ("left", "right"):
        (here / "folder" / name).mkdir(parents=True)
        for i in range(3):
            save(here / "folder" / name / f"{i}.png", rng.integers(0, 255, (8, 8, 3) if colour else (8, 8), dtype=np.uint8))
    config, _ = settings.new({"data": "folder", "backend": "numpy", "size": (8, 8)} | given)
    assert (config.augment, config.epochs, config.label_smoothing) == expected


def test_a_recipe_takes_the_optimizer_and_the_batch_size(here, rng):
    for name in ("left", "right"):
        (here / "folder" / name).mkdir(parents=True)
        for i in range(3):
            save(here / "folder" / name / f"{i}.png", rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    config, _ = settings.new({"data": "folder", "backend": "numpy", "recipe": "airbench", "optimizer": "muon", "batch_size": 64})
    assert (config.optimizer, config.batch_size, config.lr) == ("muon", 64, pytest.approx(0.01))


def test_a_run_that_lacks_its_page_gets_it(pictures, here, capsys):
    """It was stopped after training, or is of an older version."""
    assert nbnet("train", "--data", pictures, "--out", "run", *TINY) == 0
    (here / "run" / "report.html").unlink()
    assert nbnet("train", "--resume", "run") == 0
    assert (here / "run" / "report.html").is_file()
    assert nbnet("train", "--resume", "run") == 2
    assert "is complete after 3 epochs" in capsys.readouterr().err


def test_the_epochs_of_a_folder_follow_from_its_images():
    assert [settings._of_images(count, 1)["epochs"] for count in (1, 1000, 1500, 7500, 10**6)] == [150, 150, 100, 20, 20]


def test_that_images_are_mirrored_is_said(here, rng, capsys):
    """Where nobody asked for it."""
    for name in ("left", "right"):
        (here / "colours" / name).mkdir(parents=True)
        for i in range(5):
            save(here / "colours" / name / f"{i}.png", rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    note = "note: training images are also mirrored; use --augment crop if mirroring changes the class, as with letters\n"
    for number, (words, said) in enumerate((([], True), (["--augment", "flip"], False), (["--augment", "crop"], False))):
        assert nbnet("train", "--data", "colours", "--out", str(number), *TINY, "--epochs", 1, *words) == 0
        assert (note in capsys.readouterr().out) == said
    assert nbnet("train", "--resume", "0", "--epochs", 2) == 0
    assert note not in capsys.readouterr().out


@pytest.mark.parametrize("names", ["none", "flip, cutmix,color"])
def test_augment(pictures, here, names):
    """None, or several; a run of a version without it has none, and goes on."""
    assert nbnet("train", "--data", pictures, "--out", "run", *TINY, "--augment", names) == 0
    path = here / "run" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    assert config["augment"] == ([] if names == "none" else ["flip", "cutmix", "color"])
    assert (here / "run" / "augmented.png").exists() == (names != "none")
    if names == "none":
        del config["augment"]
        path.write_text(json.dumps(config), encoding="utf-8")
    assert nbnet("train", "--resume", "run", "--epochs", 4) == 0
    assert nbnet("predict", "run", *pictures.glob("left/*")) == 0


def test_a_folder_with_validation_images_of_its_own(pictures, here, rng, capsys):
    """They are what each epoch is evaluated on; the test is only for the end."""
    for part, count in (("train", 10), ("val", 3), ("Test", 2)):
        for name in ("left", "right"):
            (here / "split" / part / name).mkdir(parents=True)
            for i in range(count):
                save(here / "split" / part / name / f"{i}.png", picture(rng, name) if part != "val" else picture(rng, "top"))
    assert nbnet("train", "--data", "split", "--out", "run", *TINY, "--epochs", 20) == 0
    out = capsys.readouterr().out
    assert "data: split, 20 training, 6 validation and 4 test images of 8x8x1, 2 classes" in out
    assert "  epoch        loss  accuracy    val loss  accuracy     images/s\n" in out
    assert "test accuracy: 100.00 % (0 of 4 wrong)" in out
    history = json.loads((here / "run" / "history.json").read_text(encoding="utf-8"))
    assert history["val_accuracy"][-1] < 0.9  # of pictures that are neither
    assert nbnet("train", "--resume", "run", "--epochs", 21) == 0
    assert nbnet("predict", "run", "split/Test/left/0.png") == 0


def test_train_digits_learns_and_numbers_its_runs(here, capsys):
    """No option but the backend and the epochs: the data, the model and the folder are chosen."""
    for number in (1, 2):
        assert nbnet("train", "--epochs", 4, "--backend", "serial", "--seed", number) == 0
        assert f"run: runs/digits-digits-{number}\n" in capsys.readouterr().out
        history = json.loads((here / "runs" / f"digits-digits-{number}" / "history.json").read_text(encoding="utf-8"))
        assert history["val_accuracy"][-1] > 0.9
    assert arrays(here / "runs/digits-digits-1") != arrays(here / "runs/digits-digits-2")


def test_backends_give_the_same_bits(pictures, here):
    for backend in ("serial", "parallel"):
        options = ["--backend", backend, "--optimizer", "sgd", "--schedule", "cosine", "--model", "lenet"]
        assert nbnet("train", "--data", pictures, "--size", "12x10", "--epochs", 1, "--out", backend, *options) == 0
    assert arrays(here / "serial") == arrays(here / "parallel")


def test_options_reach_the_trainer(pictures, here):
    options = [
        "--model",
        "resnet9",
        "--optimizer",
        "rmsprop",
        "--schedule",
        "constant",
        "--dtype",
        "float64",
        "--seed",
        7,
        "--batch-size",
        18,
    ]
    assert nbnet("train", "--data", pictures, "--size", 8, "--epochs", 1, "--backend", "numpy", "--out", "run", *options) == 0
    values, metadata = storage.read(here / "run" / "model.safetensors")
    state = json.loads(metadata["run"])
    assert (state["optimizer"], state["seed"], state["step"], state["history"]["lr"]) == ("RMSProp", 7, 2, [0.01])
    assert values["0.conv2d.weight"].dtype == np.float64
    assert values["7.residual.body.0.conv2d.weight"].shape == (3, 3, 32, 32)


def test_the_bar_on_a_terminal(pictures):
    pty = pytest.importorskip("pty")
    parent, child = pty.openpty()
    command = process("train", "--data", pictures, *TINY, "--epochs", 40, COLUMNS="100", TERM="xterm")
    started = subprocess.Popen(**command, stdout=child, stderr=child)
    os.close(child)
    written = b""
    while True:
        try:
            part = os.read(parent, 65536)
        except OSError:  # Linux's word for the end
            part = b""
        if not part:
            break
        written += part
    os.close(parent)
    assert started.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", written.decode())  # without colours and movements
    assert re.search(r"epoch \d+/40 .*━.*loss \d\.\d{4}, accuracy .* %, .* images/s", text)
    assert len(re.findall(r" 40/40 +\d\.\d{4} ", text)) == 1
    assert "preparing kernels" in text


def test_compiling_is_said_once(pictures, here):
    command = process("train", "--data", pictures, *TINY, "--epochs", 1, "--optimizer", "sgd", NUMBA_CACHE_DIR=str(here / "cache"))
    outputs = [subprocess.run(**command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert [output.count("compiling kernels (once, ") for output in outputs] == [1, 0]


def test_a_recipe(here, rng, capsys):
    for name in ("dark", "light"):
        (here / "colours" / name).mkdir(parents=True)
        for i in range(10):
            save(here / "colours" / name / f"{i}.png", rng.integers(0, 100, (32, 32, 3), np.uint8) + np.uint8(150 * (name == "light")))
    words = ["train", "--data", "colours", "--recipe", "airbench", "--backend", "serial", "--batch-size", 4]
    assert nbnet(*words, "--epochs", 2, "--out", "whole") == 0
    assert nbnet(*words, "--epochs", 1, "--out", "run") == 0
    config = json.loads((here / "run" / "config.json").read_text())
    assert [config[key] for key in ("recipe", "model", "optimizer", "schedule", "augment")] == [
        "airbench",
        "airbench",
        "sgd",
        "piecewise",
        ["flip", "translate"],
    ]
    assert (here / "run" / "augmented.png").is_file()
    assert nbnet("train", "--resume", "run", "--epochs", 2) == 0
    capsys.readouterr()
    assert nbnet("predict", "whole", "--tta", "colours/dark/0.png", "colours/light/0.png") == 0
    shown = [row.split()[1:3] for row in capsys.readouterr().out.splitlines()[1:]]
    model = models.get("airbench")(2)
    model.build((32, 32, 3), backend="serial")
    model.load_weights(here / "whole" / "model.safetensors")
    x = read_images(["colours/dark/0.png", "colours/light/0.png"], (32, 32), 3)
    probabilities, _ = softmax_forward(predict_views(model, x))
    assert shown == [[["dark", "light"][row.argmax()], f"{100 * row.max():.1f}"] for row in probabilities]
    assert abs(probabilities - model.predict_proba(x)).max() > 1e-3
    for option, value in (("--lr", 0.1), ("--model", "lenet"), ("--augment", "none"), ("--weight-decay", 0), ("--schedule", "cosine")):
        assert nbnet(*words, option, value) == 2
        assert one_line_error(capsys) == f"{option} is a part of the recipe airbench: leave it out"
    assert nbnet(*words, "--optimizer", "adam") == 2
    assert one_line_error(capsys).startswith("unknown optimizer 'adam'")
    assert nbnet("train", "--recipe", "airbench") == 2
    assert one_line_error(capsys).startswith("--recipe airbench is for RGB images of at least 25x25 pixels, got 8x8x1: use --data cifar10")
    assert nbnet("train", "--recipe", "airbnb") == 2
    assert one_line_error(capsys).startswith("unknown recipe 'airbnb'")


def test_tensorboard(pictures, here, capsys):
    """Beside the run, and resumed: with the option again, the files go on."""
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    def steps(tag):
        found = []
        for path in sorted((here / "board").iterdir()):
            data = path.read_bytes()
            while data:
                length = int.from_bytes(data[:8], "little")
                event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
                found += [event.step for value in event.summary.value if value.tag == tag]
        return found

    assert nbnet("train", "--data", pictures, "--out", "run", "--tensorboard", "board", *TINY) == 0
    assert steps("val_accuracy") == [1, 2, 3]
    assert steps("augmented") == [1, 2, 3, 4]
    assert steps("mistakes") == [1, 2, 3]
    assert nbnet("train", "--resume", "run", "--epochs", 4, "--tensorboard", "board") == 0
    assert steps("val_accuracy") == [1, 2, 3, 4]
    assert "tensorboard" not in json.loads((here / "run" / "config.json").read_text(encoding="utf-8"))
