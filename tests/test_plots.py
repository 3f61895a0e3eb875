"""The pictures of a run: what is written in them, that the files are pictures, and bad input."""

import os
import subprocess
import sys

import numpy as np
import pytest
from descriptions import check
from drawn import caught
from matplotlib.figure import Figure
from PIL import Image

from nbnet import plots
from nbnet.errors import ArgumentError, DataError, DTypeError, NbnetError, ShapeError
from nbnet.plots import figures as figures_of
from nbnet.plots.images import SHOWN

HISTORY = {
    "loss": [2.0, 1.0, 0.5],
    "accuracy": [0.2, 0.5, 0.75],
    "val_loss": [1.9, 1.1, 0.7],
    "val_accuracy": [0.3, 0.5, 0.625],
    "lr": [1, 1, 1],
    "seconds": [1, 1, 1],
}
NAMES = ["cat", "dog", "emu"]


def check_picture(path):
    """A PNG of a good size with dark and light in it."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("L"))
    assert min(pixels.shape) >= 200
    assert pixels.min() < 100
    assert pixels.max() == 255
    return pixels


@pytest.fixture
def figures(monkeypatch):
    """The figures that were saved."""
    saved = []
    save = plots.save
    monkeypatch.setattr(figures_of, "save", lambda figure, path: (saved.append(figure), save(figure, path)))
    return saved


def texts(axes):
    return [text.get_text() for text in axes.texts]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


# ------------------------------------------------------------------------------------------------------ curves


def test_curves(tmp_path, figures):
    plots.curves(HISTORY, tmp_path / "curves.png")
    check_picture(tmp_path / "curves.png")
    loss, accuracy = figures[0].axes
    assert legend(loss) == ["training, 0.5 at the end", "validation, 0.7 at the end"]
    assert legend(accuracy) == ["training, 75.0 % at the end", "validation, 62.5 % at the end"]
    line = loss.get_lines()[0]
    assert [list(line.get_xdata()), list(line.get_ydata())] == [[1, 2, 3], HISTORY["loss"]]


def test_curves_of_one_epoch_of_regression_and_with_gaps(tmp_path, figures):
    plots.curves({key: values[:1] for key, values in HISTORY.items()}, tmp_path / "one.png")
    plots.curves({"loss": [2.0, 1.0], "lr": [1, 1]}, tmp_path / "regression.png")
    plots.curves({"loss": [2.0, 1.0], "val_loss": [float("nan"), 0.9]}, tmp_path / "gaps.png")
    plots.curves({"loss": [2.0, 1.0], "val_loss": [float("nan")] * 2}, tmp_path / "nothing.png")
    for name in ("one", "regression", "gaps", "nothing"):
        check_picture(tmp_path / f"{name}.png")
    assert [len(figure.axes) for figure in figures] == [2, 1, 1, 1]
    assert legend(figures[2].axes[0]) == ["training, 1 at the end", "validation, 0.9 at the end"]
    assert legend(figures[3].axes[0]) == ["training, 1 at the end"]


def test_a_loss_that_falls_far_is_drawn_on_a_log_scale(tmp_path, figures):
    plots.curves({"loss": [2.0, 0.001]}, tmp_path / "far.png")
    plots.curves({"loss": [2.0, 1.0]}, tmp_path / "near.png")
    assert [figure.axes[0].get_yscale() for figure in figures] == ["log", "linear"]


@pytest.mark.parametrize(("history", "had"), [({}, "no column"), ({"loss": [], "lr": []}, "loss, lr")])
def test_curves_of_nothing(tmp_path, history, had):
    with pytest.raises(DataError, match=f"the history has {had}: expected at least one epoch"):
        plots.curves(history, tmp_path / "curves.png")


# --------------------------------------------------------------------------------------------------- confusion


def test_confusion(tmp_path, figures):
    plots.confusion(np.array([[8, 2, 0], [1, 3, 0], [0, 0, 0]]), NAMES, tmp_path / "confusion.png")
    check_picture(tmp_path / "confusion.png")
    axes = figures[0].axes[0]
    assert texts(axes) == ["8", "2", "·", "1", "3", "·", "·", "·", "·"]
    assert axes.get_title(loc="left") == "78.57 % right: 11 of 14"
    assert [label.get_text() for label in axes.get_yticklabels()] == NAMES
    recalls = axes.child_axes[0].get_yticklabels()
    assert [label.get_text() for label in recalls] == ["80.0 %", "75.0 %", "none"]


def test_confusion_of_two_ten_and_sixty_classes(tmp_path, figures, rng):
    for classes in (2, 10, 60):
        names = [f"a class {i}" for i in range(classes)]
        plots.confusion(rng.integers(0, 2000, (classes, classes)), names, tmp_path / f"{classes}.png")
        check_picture(tmp_path / f"{classes}.png")
    assert [len(texts(figure.axes[0])) for figure in figures] == [4, 100, 0]


def test_names_are_drawn_as_they_are(tmp_path, figures):
    """A dollar starts no formula, and a file name that is not text is drawn with question marks."""
    names = [r"$\bad$", "caf\udce9\n", "2 $"]
    plots.confusion(np.eye(3, dtype=int), names, tmp_path / "confusion.png")
    images, said = np.zeros((3, 6, 6, 1), np.uint8), np.array([1, 2, 0])
    plots.mistakes(images, np.arange(3), said, np.eye(3)[said], names, tmp_path / "mistakes.png")
    check_picture(tmp_path / "confusion.png")
    check_picture(tmp_path / "mistakes.png")
    assert [label.get_text() for label in figures[0].axes[0].get_yticklabels()] == [r"\$\bad\$", "caf??", r"2 \$"]


def test_confusion_that_does_not_fit(tmp_path):
    with pytest.raises(ShapeError, match=r"matrix has shape \(2, 3\), expected \(3, 3\)"):
        plots.confusion(np.zeros((2, 3)), NAMES, tmp_path / "confusion.png")


# ---------------------------------------------------------------------------------------------------- mistakes


def batch(rng, count, channels, dtype=np.uint8):
    x = rng.integers(0, 256, (count, 6, 6, channels), dtype=np.uint8)
    return x if dtype == np.uint8 else (x / 255).astype(dtype)


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (3, np.uint8), (1, np.float32), (3, np.float64)])
def test_mistakes_most_confident_first(tmp_path, figures, rng, channels, dtype):
    images = batch(rng, 4, channels, dtype)
    labels, said = np.array([0, 1, 2, 0]), np.array([1, 1, 0, 2])
    probabilities = np.array([[0.2, 0.6, 0.2], [0, 1, 0], [0.9, 0, 0.1], [0, 0.25, 0.75]])
    plots.mistakes(images, labels, said, probabilities, NAMES, tmp_path / "mistakes.png")
    check_picture(tmp_path / "mistakes.png")
    figure = figures[0]
    assert [axes.get_title() for axes in figure.axes] == ["emu → cat\n90 %", "cat → emu\n75 %", "cat → dog\n60 %"]
    assert figure.get_suptitle().startswith("3 mistakes in 4 images: ")
    drawn = figure.axes[0].images[0].get_array()
    assert np.array_equal(drawn, images[2, ..., 0] if channels == 1 else images[2])


def test_many_mistakes_show_the_first(tmp_path, figures, rng):
    count = 40
    probabilities = rng.random((count, 3))
    plots.mistakes(batch(rng, count, 1), np.zeros(count, int), np.ones(count, int), probabilities, NAMES, tmp_path / "mistakes.png")
    shown = [axes for axes in figures[0].axes if axes.get_title()]
    assert len(shown) == SHOWN < count
    assert figures[0].get_suptitle().startswith(f"40 mistakes in 40 images, the {SHOWN} most confident: ")


def test_no_mistakes(tmp_path, figures, rng):
    labels = np.array([0, 1, 2])
    plots.mistakes(batch(rng, 3, 1), labels, labels, np.eye(3), NAMES, tmp_path / "mistakes.png")
    check_picture(tmp_path / "mistakes.png")
    assert texts(figures[0].axes[0]) == ["no mistakes", "all 3 images were classified right"]


def test_mistakes_that_do_not_fit(tmp_path, rng):
    labels = np.zeros(4, int)
    for images, probabilities in (
        (batch(rng, 3, 1), np.zeros((4, 3))),
        (batch(rng, 4, 2), np.zeros((4, 3))),
        (batch(rng, 4, 1), np.zeros(4)),
    ):
        with pytest.raises(ShapeError, match=r"expected \(N, H, W, 1 or 3\), \(N,\), \(N,\), \(N, C\)"):
            plots.mistakes(images, labels, labels, probabilities, NAMES, tmp_path / "mistakes.png")


# ------------------------------------------------------------------------------------------------------- files


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"cannot write .*curves.png: No such file or directory; choose a folder that exists"):
        plots.curves(HISTORY, tmp_path / "nowhere" / "curves.png")


def test_no_pyplot(tmp_path):
    """Nothing global: no pyplot, so no window and no figure that stays in memory."""
    code = f"import sys; from nbnet import plots; plots.curves({{'loss': [1.0]}}, {str(tmp_path / 'a.png')!r})"
    code += "; print('matplotlib.figure' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense", "svg", ""])
def test_the_backend_of_a_notebook(tmp_path, backend):
    """It may not be installed where a command of the notebook runs. One that is there stays the one of pyplot."""
    code = f"import os; from nbnet import plots; plots.curves({{'loss': [1.0]}}, {str(tmp_path / 'a.png')!r})"
    code += (
        "; import matplotlib; print(os.environ.get('MPLBACKEND'), matplotlib.get_backend() if os.environ['MPLBACKEND'] == 'svg' else '')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"MPLBACKEND": backend})
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{backend} {'svg' if backend == 'svg' else ''}\n", "")
    check_picture(tmp_path / "a.png")


def test_an_unknown_format(tmp_path):
    with pytest.raises(DataError, match=r"cannot write .*curves.pgn: unknown format 'pgn': did you mean 'png'\? choose one of "):
        plots.curves(HISTORY, tmp_path / "curves.pgn")
    plots.curves(HISTORY, tmp_path / "curves")
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_an_interrupted_picture_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "curves.svg"
    path.write_text("old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device"):
        plots.curves(HISTORY, path)
    assert path.read_text() == "old"


def test_class_names_are_not_formulas(tmp_path):
    """Matplotlib reads text between dollar signs as a formula, and fails on a wrong one."""
    names = [r"$\wrong{$", "$2", "a$b$c"]
    plots.confusion(np.eye(3, dtype=int), names, tmp_path / "confusion.png")
    images, labels = np.zeros((3, 4, 4, 1)), np.arange(3)
    plots.mistakes(images, labels, np.roll(labels, 1), np.full((3, 3), 1 / 3), names, tmp_path / "mistakes.png")


def test_many_classes_are_drawn_small_and_without_counts(tmp_path, monkeypatch, figures):
    monkeypatch.setattr(figures_of, "figure", lambda *size: figures.append(size) or Figure(size))
    monkeypatch.setattr(figures_of, "save", lambda figure, path: figures.append(figure.axes[0]))
    found = {}
    for classes in (12, 13, 30, 31, 90):
        plots.confusion(np.eye(classes, dtype=int), [f"{i:02}" for i in range(classes)], tmp_path / "a.png")
        size, axes = figures[-2:]
        found[classes] = axes.get_yticklabels()[0].get_fontsize(), len(axes.texts), size[0] == size[1] + 0.88
    assert found == {12: (10, 144, True), 13: (8, 169, True), 30: (8, 900, True), 31: (7, 0, True), 90: (3, 0, True)}


# --------------------------------------------------------------------------------------------------- all that is drawn


def test_all_that_is_drawn(tmp_path, monkeypatch, request):
    """Beside tests/described/plots.txt."""
    drawn = caught(monkeypatch)
    plots.curves(HISTORY, tmp_path / "a.png")
    plots.curves({"loss": [20.0, 0.9, 1.0], "val_loss": [float("nan"), 0.9, float("inf")], "accuracy": []}, tmp_path / "b.png")
    plots.curves({"val_accuracy": [0.25, 0.5]}, tmp_path / "c.png")
    shares = {"f1": [0.25, 0.5], "auc": [0.5, 0.75], "val_auc": [0.5, 0.625]}
    plots.curves({"loss": [2.0, 1.0], **shares, "r2": [-0.5, 0.25], "lr": [0.1, 0.2]}, tmp_path / "c.png")
    for classes, names in ((2, "ab"), (5, [f"a class {i}" for i in range(5)]), (13, "abcdefghijklm"), (31, [f"{i}" for i in range(31)])):
        counts = np.arange(classes**2).reshape(classes, classes) ** 2 % 97 * (np.arange(classes) != 1)[:, None]
        plots.confusion(counts, list(names), tmp_path / "d.png")
    plots.confusion(np.zeros((2, 2), int), ["a", "b"], tmp_path / "e.png")
    for count, shape, dtype in ((3, (6, 9, 1), np.uint8), (14, (20, 6, 3), np.float32), (40, (6, 6, 1), np.uint8)):
        images = (np.arange(count * np.prod(shape)).reshape(count, *shape) % 251).astype(np.uint8)
        probabilities = np.array([[0.9 - i / 100, 0.1 + i / 200, i / 200] for i in range(count)])
        right = np.arange(count) % 7 == 0
        x = images if dtype == np.uint8 else (images / 255).astype(dtype)
        labels, said = np.where(right, 0, 1 + np.arange(count) % 2), np.zeros(count, int)
        plots.mistakes(x, labels, said, probabilities, ["a", "a long name", "a longer name"], tmp_path / "f.png")
    plots.mistakes(images[:1], np.zeros(1, int), np.zeros(1, int), probabilities[:1], NAMES, tmp_path / "g.png")
    plots.mistakes(images[:2], np.array([0, 1]), np.zeros(2, int), probabilities[:2], NAMES, tmp_path / "h.png")
    check(request.config, "plots", drawn)


def test_augmented(tmp_path, figures, rng):
    """A row for each image, a column for each epoch beside the image itself."""
    for channels, dtype in ((1, np.uint8), (3, np.float64)):
        images = rng.integers(0, 2, (3, 5, 4, channels)).astype(dtype)
        epochs = rng.normal(0.5, 1, (2, *images.shape))
        plots.augmented(images, epochs, tmp_path / "augmented.png")
        axes = figures[-1].axes
        assert [each.get_title() for each in axes] == ["image", "epoch 1", "epoch 2", *[""] * 6]
        shown = axes[4].get_images()[0].get_array()
        np.testing.assert_array_equal(shown, np.clip(epochs[0, 1], 0, 1).reshape(shown.shape))
    with pytest.raises(ShapeError, match=r"images have shape \(3, 5, 4, 3\) and epochs \(2, 2, 5, 4, 3\): expected"):
        plots.augmented(images, epochs[:, :2], tmp_path / "augmented.png")


# ------------------------------------------------------------------------------------------------------ figures


def test_figures_are_returned_and_drawn_into_axes():
    rng = np.random.default_rng(0)
    images, said = rng.integers(0, 256, (7, 8, 8, 1), np.uint8), np.ones(7, int)
    calls = [
        (plots.curves, (HISTORY,)),
        (plots.confusion, (np.eye(3, dtype=int), NAMES)),
        (plots.rates, (np.geomspace(1e-3, 1, 9), np.arange(9.0) + 1)),
        (plots.mistakes, (images, np.zeros(7, int), said, np.eye(3)[said], NAMES)),
        (plots.mistakes, (images, said, said, np.eye(3)[said], NAMES)),
        (plots.augmented, (images, rng.random((2, 7, 8, 8, 1)))),
    ]
    for function, arguments in calls:
        made = function(*arguments)
        assert isinstance(made, Figure)
        assert made._repr_png_()[:4] == b"\x89PNG"
        own = plots.figure(12, 5)
        left, right = own.subplots(1, 2)
        assert function(*arguments, ax=right) is own
        assert not [*left.lines, *left.images, *left.texts, *left.child_axes]
        drawn = [right, *right.child_axes]
        assert any(axes.lines or axes.images or axes.texts for axes in drawn)
        own.canvas.draw()


PICTURES, TWO, HALF = np.zeros((4, 6, 6, 1)), ["a", "b"], np.full((4, 2), 0.5)
FIRST, SECOND = np.array([0, 1, 0, 1]), np.array([1, 1, 0, 1])
BAD = {
    "curves, text": (
        ValueError,
        lambda **o: plots.curves({"loss": [1.0], "f1": ["a"]}, **o),
        "the history has 'a' in f1, expected numbers",
    ),
    "rates, shapes": (
        ShapeError,
        lambda **o: plots.rates([0.1], [1, 2], **o),
        r"rates \(1,\) and losses \(2,\): expected one loss for each rate",
    ),
    "rates, NaN": (DataError, lambda **o: plots.rates([0.1], [np.nan], **o), "there are no finite losses, expected those of at least one"),
    "confusion, NaN": (
        DataError,
        lambda **o: plots.confusion(np.full((2, 2), np.nan), TWO, **o),
        "matrix has nan, expected counts, at least 0",
    ),
    "confusion, below 0": (
        DataError,
        lambda **o: plots.confusion([[1, 0], [-2, 1]], TWO, **o),
        "matrix has -2, expected counts, at least 0",
    ),
    "confusion, text": (DTypeError, lambda **o: plots.confusion([["1"]], ["a"], **o), "matrix has dtype <U1, expected counts"),
    "confusion, none": (
        ShapeError,
        lambda **o: plots.confusion(np.zeros((0, 0)), [], **o),
        r"shape \(0, 0\), expected .* at least one class",
    ),
    "mistakes, label": (
        DataError,
        lambda **o: plots.mistakes(PICTURES, FIRST + 1, FIRST, HALF, TWO, **o),
        "labels: label 2 of row 1 is not",
    ),
    "mistakes, below 0": (
        DataError,
        lambda **o: plots.mistakes(PICTURES, FIRST - 1, FIRST, HALF, TWO, **o),
        "labels: label -1 of row 0 is",
    ),
    "mistakes, prediction": (
        DataError,
        lambda **o: plots.mistakes(PICTURES, FIRST, FIRST + 1, HALF, TWO, **o),
        "predictions: label 2 of row 1 is not",
    ),
    "mistakes, floats": (
        DTypeError,
        lambda **o: plots.mistakes(PICTURES, FIRST, FIRST / 1, HALF, TWO, **o),
        "predictions: labels have dtype",
    ),
    "augmented": (
        ShapeError,
        lambda **o: plots.augmented([1], [2], **o),
        r"images have shape \(1,\) and epochs \(1,\): expected \(N, H, W",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_leaves_the_axes_as_they_are(case):
    kind, call, message = BAD[case]
    made = plots.figure(4, 3)
    axes = made.subplots()
    with pytest.raises(kind, match=message) as caught:
        call(ax=axes)
    assert isinstance(caught.value, NbnetError)
    assert "\n" not in str(caught.value)
    assert (axes.axison, axes.get_title(loc="left"), len(axes.get_children())) == (
        True,
        "",
        len(plots.figure(4, 3).subplots().get_children()),
    )


def test_lists_and_names_that_are_no_text(figures):
    plots.mistakes(PICTURES.tolist(), FIRST.tolist(), SECOND.tolist(), HALF.tolist(), [0, 1])
    plots.confusion([[1, 0], [0, 1]], [0, 1])
    plots.augmented(PICTURES.tolist(), PICTURES[None].tolist())
    plots.rates([0.1, 0.2, 0.3], [1, np.nan, 2.0])


@pytest.mark.parametrize("kind", ["figure", "array", "text", "polar", "3d"])
def test_what_is_no_axes(kind):
    made = plots.figure(4, 3)
    thing = {"figure": made, "array": made.subplots(1, 2), "text": "x"}.get(kind)
    thing = made.add_subplot(projection=kind) if thing is None else thing
    calls = [
        lambda: plots.curves({"loss": [1.0]}, ax=thing),
        lambda: plots.curves({"loss": [1.0], "f1": [1.0]}, ax=thing),
        lambda: plots.rates([0.1], [1.0], ax=thing),
        lambda: plots.confusion([[1]], ["a"], ax=thing),
        lambda: plots.mistakes(PICTURES, FIRST, FIRST, HALF, TWO, ax=thing),
        lambda: plots.mistakes(PICTURES, FIRST, SECOND, HALF, TWO, ax=thing),
        lambda: plots.augmented(PICTURES, PICTURES[None], ax=thing),
    ]
    for call in calls:
        with pytest.raises(
            ArgumentError, match=r"^ax is an? .*, expected Matplotlib axes with a straight x and y, such as plt.subplots\(\)\[1\]$"
        ):
            call()
