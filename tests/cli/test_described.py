"""All that the commands print, with # for numbers of a training or a clock, beside tests/described/."""

import re

from descriptions import check

from nbnet.cli import train

from .running import TINY, nbnet, picture, save

EPOCH, EPOCH_SHOWN = r"^( *\d+/\d+ .*) [\d,]+$", r"\1 #"  # a line of an epoch, which ends with images a second


def said(capsys):
    """The lines that were printed, without the borders of tables and what depends on the cache of kernels."""
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = [re.sub("[\u2500-\u257f]", "", line).replace("\\", "/") for line in printed.out.splitlines() if line != train.COLD]
    return [re.sub(r" +", " ", re.sub(EPOCH, EPOCH_SHOWN, re.sub(r"\d+\.\d+|\d+(?= of \d+ wrong)", "#", line))).strip() for line in lines]


def test_what_the_commands_print(pictures, here, rng, capsys, request):
    lines = []
    commands = [
        ["train", "--data", "pictures", *TINY],
        ["train", "--data", "pictures", "--out", "again", *TINY, "--epochs", 1, "--schedule", "constant", "--lr", 0.01],
        ["train", "--resume", "again", "--epochs", 2],
        ["predict", "again", "left.png", "pictures/top/1.png"],
        ["predict", "again", "--invert", "left.png"],
        ["demo"],
    ]
    save(here / "left.png", picture(rng, "left"))
    capsys.readouterr()
    for command in commands:
        assert nbnet(*command) == 0
        lines += [f"=== nbnet {' '.join(map(str, command))}", *said(capsys)]
    for part in ("train", "val", "test"):
        for name in ("left", "right"):
            (here / "split" / part / name).mkdir(parents=True)
            for i in range(4):
                save(here / "split" / part / name / f"{i}.png", picture(rng, name))
    assert nbnet("train", "--data", "split", "--out", "run", *TINY, "--batch-size", 64) == 0
    lines += ["=== a folder with a part for validation", *said(capsys)]
    check(request.config, "commands", lines)
