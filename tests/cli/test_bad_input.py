"""Bad input: one line of error."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from nbnet.cli import runs

from .running import TINY, nbnet, one_line_error, process


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("tarin", "unknown command 'tarin': did you mean 'train'? choose one of train, predict, export, bench, demo, info, warmup"),
        ("train --model lenett", "unknown model 'lenett': did you mean 'lenet'? choose one of auto, digits, lenet, five-conv, resnet9"),
        ("train --optimizer adma", "unknown optimizer 'adma': did you mean 'adam'?"),
        ("train --augment flip,crp", "unknown transform 'crp': did you mean 'crop'?"),
        ("train --augment affine,affine", "there are two RandomAffine in one list, expected at most one"),
        ("train --schedule onecycle", "unknown schedule 'onecycle': did you mean 'one_cycle'?"),
        ("train --backend paralel", "unknown backend 'paralel': did you mean 'parallel'?"),
        ("train --dtype float16", "dtype 'float16': nbnet computes in 'float32' or 'float64'"),
        ("train --data mnits", "unknown data set 'mnits': did you mean 'mnist'?"),
        ("train --data ./nowhere", "there is no folder ./nowhere: expected a folder of images"),
        ("train --data mnist --data-dir nowhere", "there is no folder"),
        ("train --data-dir somewhere", "digits are part of nbnet"),
        ("train --size 8", "size and channels apply to folders of images, not to 'digits'"),
        ("train --size 8x8x8", "argument --size: '8x8x8' is not a size: expected 32, or height x width such as 48x64"),
        ("train --epochs 0", "--epochs 0: expected a whole number, at least 1"),
        ("train --batch-size -4", "--batch-size -4: expected a whole number, at least 1"),
        ("train --epochs many", "argument --epochs: invalid int value: 'many' (see nbnet train --help)"),
        ("train --lr 0", "--lr 0.0: expected a finite number above 0"),
        ("train --lr nan", "--lr nan: expected a finite number above 0"),
        ("train --weight-decay -1", "--weight-decay -1.0: expected a finite number, at least 0"),
        ("train --seed -1", "--seed -1: expected a whole number, 0 to 18446744073709551615"),
        (f"train --epochs {10**40}", f"--epochs {10**40}: expected a whole number, 1 to 9007199254740992"),
        ("train --epoch-count 3", "unknown option '--epoch-count': did you mean --epochs? see nbnet train --help"),
        ("train digits", "unknown argument 'digits': see nbnet train --help"),
        ("train --data", "argument --data: expected one argument (see nbnet train --help)"),
        ("train --wire float16", "--wire float16 without --mpi, expected both: one process sends nothing"),
        ("warmup --backend numpy", "--backend numpy: has no compiled kernels to keep; expected parallel or serial"),
        ("warmup --all --dtype float64", "--all with --backend or --dtype: --all means both"),
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


def test_a_batch_of_one_row_leaves_no_run(pictures, here, capsys):
    """Its last layers see one pixel: a batch norm there has one value a channel."""
    options = ["--model", "resnet9", "--size", 8, "--batch-size", 1, "--backend", "numpy", "--out", "run"]
    assert nbnet("train", "--data", pictures, *options) == 2
    assert "one value per channel has no variance to normalise by; train on a larger batch" in one_line_error(capsys)
    assert not (here / "run").exists()


def test_a_damaged_picture(pictures, capsys):
    (pictures / "top" / "3.png").write_bytes((pictures / "top" / "3.png").read_bytes()[:60])
    assert nbnet("train", "--data", pictures, *TINY) == 2
    assert re.match(r"(cannot read the image )?\S*top/3.png", one_line_error(capsys))


def test_a_taken_number_is_passed_over(here):
    (here / "runs" / "my-pictures-lenet-1").mkdir(parents=True)
    assert runs.make_folder(None, "/a/my pictures", "lenet") == Path("runs/my-pictures-lenet-2")


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--data", "mnist", "--data-dir", ""],
        ["train", "--out="],
        ["train", "--tensorboard", ""],
        ["train", "--resume", ""],
        ["demo", "cifar-cnn", "--out", ""],
        ["predict", "", "digit.png"],
        ["export", "run", ""],
    ],
    ids=" ".join,
)
def test_an_empty_path_is_not_this_folder(words, here, capsys):
    """Such as that of a variable of the shell which is not set."""
    assert nbnet(*words) == 2
    assert re.match(r"argument \S+ is empty, expected (DIR|RUN|FILE): give a path \(see nbnet \w+ --help\)$", one_line_error(capsys))
    assert list(here.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has /dev/full")
@pytest.mark.parametrize("words", [["info"], ["demo"], ["--completion", "bash"]], ids=" ".join)
def test_output_that_cannot_be_written(words):
    with open("/dev/full", "w") as full:
        done = subprocess.run(**process(*words), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "nbnet: error: cannot write the output: No space left on device\n"
