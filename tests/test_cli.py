"""The command line: what it prints and writes, resuming bit for bit, Ctrl-C, and bad input."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cuda_machine import GPU
from PIL import Image

from nbnet import cli, storage
from nbnet.cli import display, runs

TINY = ["--size", "8", "--backend", "serial", "--epochs", "3", "--batch-size", "8", "--lr", "0.02"]
FILES = {"config.json", "model.safetensors", "history.json", "curves.png", "confusion.png", "mistakes.png"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Commands run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pictures(here, rng):
    """A folder of small pictures: the bright half says the class."""
    for name in ("left", "right", "top"):
        (here / "pictures" / name).mkdir(parents=True)
        for i in range(15):
            save(here / "pictures" / name / f"{i}.png", picture(rng, name))
    return here / "pictures"


def picture(rng, name):
    x = rng.integers(0, 90, (8, 8), dtype=np.uint8)
    x[{"left": np.s_[:, :4], "right": np.s_[:, 4:], "top": np.s_[:4]}[name]] += 150
    return x


def process(*words, **environment):
    """A real process, ready to start: its arguments for subprocess."""
    paths = [str(Path(cli.__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "args": [sys.executable, "-m", "nbnet", *map(str, words)],
        "env": os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | environment,
    }


def save(path, pixels):
    Image.fromarray(pixels).save(path)


def nbnet(*words):
    return cli.main([str(word) for word in words])


def arrays(run):
    """All that a run goes on with, as bytes."""
    values, metadata = storage.read(run / "model.safetensors")
    state = json.loads(metadata["run"])
    for times in (state["history"], state["position"]):
        times.pop("seconds", None)
    return {name: value.tobytes() for name, value in values.items()}, state


def one_line_error(capsys, code=2):
    """The line on stderr, without its start."""
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("nbnet: error: ")
    return err.removeprefix("nbnet: error: ").strip()


# ------------------------------------------------------------------------------------------------------- train


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
    history = json.loads((here / "run" / "history.json").read_text())
    assert list(history) == ["loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds"]
    assert {len(column) for column in history.values()} == {3}
    assert float(wrong[1]) == pytest.approx(100 * history["val_accuracy"][-1], abs=0.01)
    assert int(wrong[2]) == round(9 * (1 - history["val_accuracy"][-1]))
    config = json.loads((here / "run" / "config.json").read_text())
    assert config | {"checksum": 0, "nbnet": ""} == {
        "nbnet": "",
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
        "backend": "serial",
        "dtype": "float32",
        "seed": 0,
    }
    for name in ("curves", "confusion", "mistakes"):
        with Image.open(here / "run" / f"{name}.png") as image:
            assert min(image.size) > 200
            low, high = image.convert("L").getextrema()
            assert high - low > 100


def test_train_digits_learns_and_numbers_its_runs(here, capsys):
    """No option but the backend and the epochs: the data, the model and the folder are chosen."""
    for number in (1, 2):
        assert nbnet("train", "--epochs", 4, "--backend", "serial", "--seed", number) == 0
        assert f"run: runs/digits-digits-{number}\n" in capsys.readouterr().out
        history = json.loads((here / "runs" / f"digits-digits-{number}" / "history.json").read_text())
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
    assert [output.count("compiling kernels (once, about") for output in outputs] == [1, 0]


# ---------------------------------------------------------------------------------------------- stop and resume


def interrupt_at(monkeypatch, step, times=1):
    """Press Ctrl-C while this step is shown."""
    shown = display.Display.on_batch_end

    def on_batch_end(self, trainer):
        shown(self, trainer)
        if trainer.step == step:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(display.Display, "on_batch_end", on_batch_end)


@pytest.mark.parametrize("step", [1, 7, 10])  # 5 batches an epoch: the very first, within an epoch, the last of one
def test_ctrl_c_saves_and_the_command_it_prints_resumes(pictures, here, capsys, monkeypatch, step):
    assert nbnet("train", "--data", pictures, "--out", "whole", *TINY) == 0
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background
    with monkeypatch.context() as patch:
        interrupt_at(patch, step)
        capsys.readouterr()
        assert nbnet("train", "--data", pictures, "--out", "a run", *TINY) == 130
    out = capsys.readouterr().out
    assert f"stopped in epoch {step // 5 + 1} of 3; the run is saved. To go on:" in out
    assert signal.getsignal(signal.SIGINT) is before
    assert arrays(here / "a run")[1]["step"] == step
    command = shlex.split(out.splitlines()[-1])
    assert command == ["nbnet", "train", "--resume", "a run"]
    assert nbnet(*command[1:]) == 0
    assert arrays(here / "a run") == arrays(here / "whole")
    assert {path.name for path in (here / "a run").iterdir()} == FILES


def test_a_second_ctrl_c_ends_at_once(pictures, here, capsys, monkeypatch):
    assert nbnet("train", "--data", pictures, "--out", "whole", *TINY) == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, 8, times=2)
        assert nbnet("train", "--data", pictures, "--out", "run", *TINY) == 130
    err = capsys.readouterr().err
    assert "run holds the run as it was last saved, after epoch 1\nnbnet: interrupted" in err
    assert "Traceback" not in err
    assert arrays(here / "run")[1]["step"] == 5
    assert nbnet("train", "--resume", "run") == 0
    assert arrays(here / "run") == arrays(here / "whole")


def test_ctrl_c_in_the_last_batch_is_a_finished_run(pictures, here, capsys, monkeypatch):
    interrupt_at(monkeypatch, 15)
    assert nbnet("train", "--data", pictures, "--out", "run", *TINY) == 0
    assert "test accuracy" in capsys.readouterr().out


def test_resume_to_more_epochs_from_elsewhere(pictures, here, capsys, monkeypatch):
    assert nbnet("train", "--data", "pictures", "--out", "run", *TINY) == 0
    (here / "other").mkdir()
    monkeypatch.chdir(here / "other")
    assert nbnet("train", "--resume", here / "run", "--epochs", 5) == 0
    out = capsys.readouterr().out
    assert "note: the schedule one_cycle now spans 5 epochs, not 3" in out
    assert "from epoch 4 of 5" in out
    state = arrays(here / "run")[1]
    assert (state["epoch"], state["step"]) == (5, 25)
    assert json.loads((here / "run" / "config.json").read_text())["epochs"] == 5
    assert not list((here / "other").iterdir())


def test_resume_draws_what_is_missing(pictures, here):
    """Killed between the last epoch and the pictures."""
    assert nbnet("train", "--data", "pictures", "--out", "run", *TINY) == 0
    before = arrays(here / "run")
    for path in (here / "run").glob("*.png"):
        path.unlink()
    assert nbnet("train", "--resume", "run") == 0
    assert {path.name for path in (here / "run").iterdir()} == FILES
    assert arrays(here / "run") == before


def test_resume_what_cannot_be_resumed(pictures, here, capsys):
    assert nbnet("train", "--data", pictures, "--out", "run", *TINY) == 0
    model, config = here / "run" / "model.safetensors", here / "run" / "config.json"
    good, text = model.read_bytes(), config.read_text()
    capsys.readouterr()

    def refused(*words):
        assert nbnet("train", "--resume", *words) == 2
        return one_line_error(capsys)

    assert refused("nowhere").startswith("there is no run nowhere: wanted a folder that nbnet train wrote, with config.json")
    assert refused(pictures).startswith(f"{pictures} is no run: wanted")
    assert refused("run") == "the run run is complete: it has done 3 epochs; to go on, give a larger --epochs"
    assert refused("run", "--epochs", 2) == "the run run is complete: it has done 3 epochs; to go on, give a larger --epochs"
    assert refused("run", "--epochs", 9, "--lr", 1) == "--lr cannot change when a run is resumed: give --resume and --epochs alone"
    model.write_bytes(good[:-9])
    assert "model.safetensors is truncated or not a safetensors file" in refused("run", "--epochs", 9)
    model.unlink()
    assert refused("run", "--epochs", 9).startswith("run has no model.safetensors: there is nothing to resume")
    model.write_bytes(good)
    for broken in (text[:-20], text.replace('"seed"', '"sead"'), text.replace("[\n  8,\n  8,\n  1\n ]", "[8, 8]"), "[]"):
        config.write_text(broken)
        assert refused("run", "--epochs", 9).startswith("run/config.json is damaged: ")
    config.write_text(text.replace('"digits"', '"lenet"'))
    assert "'0.conv2d.weight' has shape (3, 3, 1, 16) and dtype float32, wanted (3, 3, 1, 32)" in refused("run", "--epochs", 9)
    config.write_text(text)
    save(pictures / "left" / "0.png", np.zeros((8, 8), np.uint8))
    assert "pictures has other images or labels than run was started with" in refused("run", "--epochs", 9)
    assert model.read_bytes() == good


# ---------------------------------------------------------------------------------------- training goes wrong


def test_nan_keeps_the_last_good_checkpoint(pictures, here, capsys):
    assert nbnet("train", "--data", pictures, "--out", "run", *TINY, "--lr", "1e30", "--schedule", "step", "--optimizer", "sgd") == 2
    error = one_line_error(capsys)
    assert re.match(
        r"the loss is nan at step 1: .*layer \d+\.\w+ .*lower the learning rate.*; run holds the run as it was last saved", error
    )
    assert error.endswith("after epoch 0")
    values, _ = storage.read(here / "run" / "model.safetensors")
    assert all(np.isfinite(value).all() for value in values.values())
    assert nbnet("predict", "run", pictures / "left" / "0.png") == 0


def test_a_full_disk(pictures, here, capsys, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert nbnet("train", "--data", pictures, "--out", "run", *TINY) == 2
    assert one_line_error(capsys).startswith("cannot write run/model.safetensors: No space left on device; choose a folder")


@pytest.mark.parametrize("out", ["file", "file/run"])
def test_a_run_folder_that_cannot_be_made(pictures, here, capsys, out):
    (here / "file").write_text("")
    assert nbnet("train", "--data", pictures, "--out", out, *TINY) == 2
    error = one_line_error(capsys)
    assert error in (
        "--out file exists already: choose another folder",
        f"cannot make the run folder {out}: Not a directory; choose one that can be written with --out",
    )


def test_a_run_is_never_overwritten(pictures, here, capsys):
    (here / "full").mkdir()
    (here / "full" / "thesis.txt").write_text("ten years of work")
    assert nbnet("train", "--data", pictures, "--out", "full", *TINY) == 2
    assert one_line_error(capsys) == "--out full exists already and is not empty: choose another folder"
    assert nbnet("train", "--data", pictures, "--out", "run", *TINY) == 0
    capsys.readouterr()
    assert nbnet("train", "--data", pictures, "--out", "run", *TINY) == 2
    assert one_line_error(capsys).endswith(", or go on with that run: nbnet train --resume run")
    assert [path.name for path in (here / "full").iterdir()] == ["thesis.txt"]


# ----------------------------------------------------------------------------------------------------- predict


@pytest.fixture
def trained(pictures, here):
    assert nbnet("train", "--data", pictures, "--out", "run", *TINY, "--epochs", 12) == 0
    return here / "run"


def test_predict(trained, here, rng, capsys):
    save(here / "left.png", picture(rng, "left"))
    large = np.kron(picture(rng, "right"), np.ones((5, 5), np.uint8))
    save(here / "right.jpg", np.dstack([large] * 3))  # RGB and of another size
    save(here / "inverted.png", 255 - picture(rng, "top"))
    capsys.readouterr()
    assert nbnet("predict", trained, "left.png", "right.jpg") == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["file", "class", "probability", "runner-up"]
    found = [re.fullmatch(r"(\S+) +(\S+) +(\S+) % +(\w+) \((\S+) %\) *", row) for row in rows]
    assert [match.group(1, 2) for match in found] == [("left.png", "left"), ("right.jpg", "right")]
    for match in found:
        assert match[4] != match[2]
        assert 50 < float(match[3]) <= 100
        assert 0 <= float(match[5]) < 50
        assert float(match[3]) + float(match[5]) <= 100.1
    assert nbnet("predict", trained, "--invert", "--backend", "numpy", "inverted.png") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["inverted.png", "top"]


def test_predict_bad_input(trained, here, capsys):
    (here / "text.png").write_text("no picture")
    capsys.readouterr()
    cases = {
        ("run", "nowhere.png"): "cannot read the image nowhere.png: No such file or directory",
        ("run", "text.png"): "text.png is not an image that Pillow can read",
        ("nowhere", "text.png"): "there is no run nowhere: wanted a folder that nbnet train wrote",
        ("run", "--backend", "cdua", "text.png"): "unknown backend 'cdua': did you mean 'cuda'?",
        ("run",): "the following arguments are required: IMAGE (see nbnet predict --help)",
    }
    for words, message in cases.items():
        assert nbnet("predict", *words) == 2
        assert one_line_error(capsys).startswith(message)


# ---------------------------------------------------------------------------------------- help, info and warmup


def test_a_real_process(here):
    commands = [process("--help"), process(), process("info"), process("trian")]
    help_, none, info, wrong = [subprocess.run(**command, capture_output=True, text=True, check=False) for command in commands]
    assert (help_.returncode, none.returncode, info.returncode, wrong.returncode) == (0, 0, 0, 2)
    assert help_.stdout == none.stdout
    assert all(name in help_.stdout for name in cli.COMMANDS)
    facts = dict(line.split(":", 1) for line in info.stdout.splitlines())
    assert list(facts) == [
        *("nbnet", "python", "numpy", "numba", "llvmlite", "cpu", "vector features", "threads", "threading layer"),
        *("kernel cache", "data cache", "gpu"),
    ]
    assert facts["numpy"].strip() == np.__version__
    assert facts["kernel cache"].strip().startswith(os.environ["NUMBA_CACHE_DIR"])
    assert ("compute capability" if GPU else "none: backend 'cuda'") in facts["gpu"]
    assert (
        wrong.stderr
        == "nbnet: error: unknown command 'trian': did you mean 'train'? choose one of train, predict, bench, demo, info, warmup\n"
    )
    assert [done.stderr for done in (help_, none, info)] == ["", "", ""]


def test_a_reader_that_goes_away(here):
    with subprocess.Popen(**process("info"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
        started.stdout.close()
        assert started.stderr.read() == b""
        assert started.wait() == 1


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        nbnet(command, "--help")
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert "examples:\n  nbnet " + command in out or f"nbnet {command}" in out.split("examples:")[1]


def test_version(capsys):
    with pytest.raises(SystemExit):
        nbnet("--version")
    assert capsys.readouterr().out == f"nbnet {cli.__version__}\n"


def test_warmup(capsys):
    assert nbnet("warmup", "--backend", "serial") == 0
    out = capsys.readouterr().out
    assert re.search(r"(\d+ kernels compiled|every kernel was in the cache already) \(serial; float32\), \d+\.\d s\n$", out)
    assert nbnet("warmup", "--backend", "serial") == 0
    assert capsys.readouterr().out.startswith("every kernel was in the cache already (serial; float32)")


def test_warmup_leaves_nothing_to_compile(pictures, here):
    """Every model and optimiser trains afterwards without compiling."""
    assert nbnet("warmup", "--backend", "serial") == 0
    before = cli.train.kernels.compiled()
    for model, optimizer in (("five-conv", "adamw"), ("resnet9", "sgd"), ("lenet", "rmsprop"), ("digits", "adam")):
        options = ["--model", model, "--optimizer", optimizer, "--backend", "serial", "--epochs", 1]
        assert nbnet("train", "--data", pictures, "--size", 8, *options) == 0
    assert cli.train.kernels.compiled() == before


# --------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("tarin", "unknown command 'tarin': did you mean 'train'? choose one of train, predict, bench, demo, info, warmup"),
        ("train --model lenett", "unknown model 'lenett': did you mean 'lenet'? choose one of auto, digits, lenet, five-conv, resnet9"),
        ("train --optimizer adma", "unknown optimizer 'adma': did you mean 'adam'?"),
        ("train --schedule onecycle", "unknown schedule 'onecycle': did you mean 'one_cycle'?"),
        ("train --backend paralel", "unknown backend 'paralel': did you mean 'parallel'?"),
        ("train --dtype float16", "dtype 'float16': nbnet computes in 'float32' or 'float64'"),
        ("train --data mnits", "unknown data set 'mnits': did you mean 'mnist'?"),
        ("train --data ./nowhere", "there is no folder ./nowhere: wanted a folder of images"),
        ("train --data mnist --data-dir nowhere", "there is no folder"),
        ("train --data-dir somewhere", "digits come with nbnet and read no folder"),
        ("train --size 8", "size and channels are for folders of images, not for 'digits'"),
        ("train --size 8x8x8", "argument --size: '8x8x8' is no size: wanted 32, or height x width such as 48x64"),
        ("train --epochs 0", "--epochs 0: wanted a whole number, at least 1"),
        ("train --batch-size -4", "--batch-size -4: wanted a whole number, at least 1"),
        ("train --epochs many", "argument --epochs: invalid int value: 'many' (see nbnet train --help)"),
        ("train --lr 0", "--lr 0.0: wanted a number above 0, such as 0.01"),
        ("train --lr nan", "--lr nan: wanted a number above 0, such as 0.01"),
        ("train --weight-decay -1", "--weight-decay -1.0: wanted a number that is at least 0"),
        ("train --seed -1", "seed=-1: wanted a whole number from 0 to 2^64 - 1"),
        ("train --epoch-count 3", "unknown option '--epoch-count': did you mean --epochs? see nbnet train --help"),
        ("train digits", "unknown argument 'digits': see nbnet train --help"),
        ("train --data", "argument --data: expected one argument (see nbnet train --help)"),
        ("warmup --backend numpy", "--backend numpy: it compiles nothing; wanted parallel or serial"),
        ("warmup --all --dtype float64", "--all means both backends and both dtypes"),
    ],
)
def test_bad_arguments(words, message, here, capsys):
    assert nbnet(*words.split()) == 2
    assert one_line_error(capsys).startswith(message)
    assert not (here / "runs").exists()


def test_a_model_that_does_not_fit_the_images(pictures, here, capsys):
    assert nbnet("train", "--data", pictures, "--size", 4, "--model", "five-conv", "--backend", "numpy") == 2
    assert "layer 11.maxpool2d does not fit layer 10.relu, which gives (1, 1, 32)" in one_line_error(capsys)
    assert not (here / "runs").exists()


def test_a_damaged_picture(pictures, capsys):
    (pictures / "top" / "3.png").write_bytes((pictures / "top" / "3.png").read_bytes()[:60])
    assert nbnet("train", "--data", pictures, *TINY) == 2
    assert re.match(r"(cannot read the image )?\S*top/3.png", one_line_error(capsys))


def test_a_taken_number_is_passed_over(here):
    (here / "runs" / "my-pictures-lenet-1").mkdir(parents=True)
    assert runs.make_folder(None, "/a/my pictures", "lenet") == Path("runs/my-pictures-lenet-2")
