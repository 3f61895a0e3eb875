"""nbnet predict."""

import re

import numpy as np

from .running import nbnet, one_line_error, picture, save


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


def test_patterns_that_the_shell_leaves(trained, pictures, here, rng, capsys):
    """cmd.exe and PowerShell pass *.png on. A file whose name looks like a pattern is that file."""
    save(here / "a[1].png", picture(rng, "left"))
    save(here / "a1.png", picture(rng, "left"))
    capsys.readouterr()
    assert nbnet("predict", trained, f"{pictures}/top/1*.png", "a[1].png") == 0
    names = [row.split()[0] for row in capsys.readouterr().out.splitlines()[1:]]
    assert names == [*(str(pictures / "top" / f"{n}.png") for n in ("1", "10", "11", "12", "13", "14")), "a[1].png"]


def test_predict_bad_input(trained, here, capsys):
    (here / "text.png").write_text("no picture", encoding="utf-8")
    capsys.readouterr()
    cases = {
        ("run", "nowhere.png"): "cannot read the image nowhere.png: No such file or directory",
        ("run", "text.png"): "text.png is not an image that nbnet reads",
        ("nowhere", "text.png"): "there is no run nowhere: expected a folder written by nbnet train",
        ("run", "--backend", "cdua", "text.png"): "unknown backend 'cdua': did you mean 'cuda'?",
        ("run",): "the following arguments are required: IMAGE (see nbnet predict --help)",
    }
    for words, message in cases.items():
        assert nbnet("predict", *words) == 2
        assert one_line_error(capsys).startswith(message)
