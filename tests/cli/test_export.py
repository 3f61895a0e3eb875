"""nbnet export, and nbnet predict with ONNX files."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_files.running import nchw, run  # noqa: E402

import nbnet as nb  # noqa: E402
from nbnet.datasets import read_images  # noqa: E402

from .running import nbnet, one_line_error, picture, save  # noqa: E402


def test_export_and_predict(trained, here, rng, capsys):
    for name in ("left", "right", "top"):
        save(here / f"{name}.png", picture(rng, name))
    files = ["left.png", "right.png", "top.png"]
    capsys.readouterr()
    assert nbnet("predict", trained, *files) == 0
    wanted = capsys.readouterr().out
    x = read_images(files).astype("float32") / 255
    for options in ([], ["--layout", "NCHW", "--fold"]):
        assert nbnet("export", trained, "model.onnx", *options) == 0
        assert capsys.readouterr().out == f"wrote model.onnx: {(here / 'model.onnx').stat().st_size:,} bytes, 3 classes\n"
        assert nbnet("predict", "model.onnx", *files) == 0
        assert capsys.readouterr().out == wanted
        (y,) = run("model.onnx", nchw(x) if options else x)
        assert [nb.onnx.metadata("model.onnx")["class_names"][i] for i in y.argmax(axis=1)] == ["left", "right", "top"]
        folded = "BatchNormalization" not in {node.op_type for node in onnx.load("model.onnx").graph.node}
        assert folded == bool(options)
    assert nbnet("predict", "--invert", "--tta", "--backend", "numpy", "model.onnx", "left.png") == 0


def test_a_file_without_names_of_classes(here, rng, capsys):
    model = nb.Sequential([nb.Flatten(), nb.Dense(4)])
    model.build((8, 8, 3), backend="numpy")
    nb.onnx.export(model, "model.onnx")
    save(here / "a.png", np.dstack([picture(rng, "left")] * 3))
    assert nbnet("predict", "model.onnx", "a.png") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[1] in ("0", "1", "2", "3")


def test_bad_input(trained, here, capsys):
    (here / "broken.onnx").write_bytes(b"no model")
    for layers, shape, name, options in (
        ([nb.Dense(3)], (5,), "flat", {}),
        ([nb.Conv2D(3, 1)], (4, 4, 1), "images", {}),
        ([nb.Flatten(), nb.Dense(1)], (4, 4, 1), "one", {}),
    ):
        model = nb.Sequential(layers)
        model.build(shape, backend="numpy")
        nb.onnx.export(model, f"{name}.onnx", **options)
    capsys.readouterr()
    cases = {
        ("predict", "broken.onnx", "a.png"): "broken.onnx is truncated or not an ONNX file (8 bytes)",
        ("predict", "nowhere.onnx", "a.png"): "cannot read 'nowhere.onnx': No such file or directory",
        ("predict", "flat.onnx", "a.png"): "flat.onnx takes (5,) and gives (3,), expected an image (H, W, 1 or 3), and classes",
        ("predict", "images.onnx", "a.png"): "images.onnx takes (4, 4, 1) and gives (4, 4, 3), expected an image",
        ("predict", "one.onnx", "a.png"): "one.onnx has 1 outputs and the names of 1 classes, expected one for each of at least 2",
        ("predict", "one.onnx", "--backend", "cdua", "a.png"): "unknown backend 'cdua': did you mean 'cuda'?",
        ("export", "nowhere", "a.onnx"): "there is no run nowhere: expected a folder written by nbnet train",
        ("export", "run", "no/a.onnx"): "cannot write no/a.onnx: No such file or directory",
        ("export", "run"): "the following arguments are required: FILE (see nbnet export --help)",
        ("export", "run", "a.onnx", "--layout", "HWC"): "argument --layout: invalid choice: 'HWC'",
    }
    for words, message in cases.items():
        assert nbnet(*words) == 2
        assert one_line_error(capsys).startswith(message)
    assert not (here / "a.onnx").exists()
