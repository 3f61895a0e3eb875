"""What the commands say after a mistake is typed here, and works."""

import re

from .running import TINY, nbnet, one_line_error


def hint(capsys, pattern, *words):
    assert nbnet(*words) == 2
    message = one_line_error(capsys)
    found = re.search(pattern, message)
    assert found, message
    return found[1]


def test_a_run_folder_that_is_there_already(pictures, here, capsys):
    new = ["train", "--data", pictures, "--out", "run", *TINY, "--epochs", 1]
    assert nbnet(*new) == 0
    capsys.readouterr()
    again = hint(capsys, r": choose another folder, or continue that run: nbnet (train --resume run)$", *new).split()
    option = hint(capsys, r"; to continue, give a larger (--epochs)$", *again)
    only = hint(capsys, r"give only (--resume and --epochs)$", *again, "--seed", 3)
    assert only == f"--resume and {option}"
    assert nbnet(*again, option, 2) == 0
    assert nbnet(*new[:3], "--out", "other", *TINY, "--epochs", 1) == 0


def test_names_that_are_nearly_right(pictures, here, capsys):
    option = hint(capsys, r"did you mean (--batch-size)\?", "train", "--bath-size", 4)
    model = hint(capsys, r"did you mean '(\w+)'\?", "train", "--model", "digit")
    command = hint(capsys, r"did you mean '(\w+)'\?", "trian")
    assert nbnet(command, "--data", pictures, "--out", "run", *TINY, "--epochs", 1, option, 4, "--model", model) == 0


def test_predictions_of_no_run(trained, here, capsys):
    command = hint(capsys, r": expected a folder written by (nbnet train), with", "predict", "nowhere", "pictures/left/0.png")
    assert command == "nbnet train"
    assert nbnet("predict", "run", "pictures/left/0.png") == 0
