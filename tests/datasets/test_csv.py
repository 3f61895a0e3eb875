"""Images whose labels or targets are in a CSV file."""

import numpy as np
import pytest
from PIL import Image

import nbnet as nb
from nbnet import datasets
from nbnet.errors import ArgumentError, DataError

HEAD = "file,label,x,y\n"


def pictures(folder, count=10):
    (folder / "in").mkdir()
    for n in range(count):
        Image.fromarray(np.full((3, 4, 3), [n, 2 * n, 0], np.uint8)).save(folder / "in" / f"{n}.png")
    return folder


def table(folder, text, encoding="utf-8"):
    (folder / "table.csv").write_text(text, encoding=encoding)
    return folder / "table.csv"


@pytest.mark.parametrize("limit", [datasets.images.MEMORY, 100])
def test_classes(tmp_path, limit):
    labels = ["cat", '"a, dog"']
    path = table(pictures(tmp_path), HEAD + "".join(f"in/{n}.png, {labels[n % 2]},0,0\n".replace(", ", ",", 1) for n in range(10)))
    (x, y), (x_test, y_test), names = datasets.from_csv(path, memory_limit=limit)
    assert names == ["a, dog", "cat"]
    assert (len(y), len(y_test), y.dtype) == (8, 2, np.int64)
    assert sorted(y_test.tolist()) == [0, 1]
    seen = np.concatenate([np.asarray(x)[:, 0, 0, 0], np.asarray(x_test)[:, 0, 0, 0]])
    assert sorted(seen) == list(range(10))
    assert np.array_equal(1 - seen % 2, np.concatenate([y, y_test]))


def test_classes_that_are_numbers_are_sorted_as_numbers(tmp_path):
    path = table(pictures(tmp_path), HEAD + "".join(f"in/{n}.png,{n % 5 * 5},0,0\n" for n in range(10)), "utf-8-sig")
    assert datasets.from_csv(path, tmp_path)[2] == ["0", "5", "10", "15", "20"]


def test_numbers(tmp_path):
    path = table(pictures(tmp_path), HEAD + "".join(f"{n}.png,,{n / 4},{-n}\n\n" for n in range(10)))
    (x, y), (x_test, y_test), names = datasets.from_csv(path, tmp_path / "in", targets=["y", "x"], test_fraction=0.3)
    assert names == ["y", "x"]
    assert y.shape == (7, 2)
    assert y_test.shape == (3, 2)
    assert np.array_equal(y[:, 0], -x[:, 0, 0, 0].astype(float))
    assert np.array_equal(y_test[:, 1], x_test[:, 0, 0, 0] / 4)


def test_several_classes_of_a_row(tmp_path):
    """Columns of 0 and 1 train with binary cross-entropy."""
    path = table(pictures(tmp_path), HEAD + "".join(f"in/{n}.png,,{n % 2},{n // 5}\n" for n in range(10)))
    train, test, names = datasets.from_csv(path, targets=["x", "y"])
    model = nb.Sequential([nb.Flatten(), nb.Dense(len(names))])
    model.build((3, 4, 3), backend="serial", seed=0)
    history = nb.Trainer(model, "binary_cross_entropy", nb.Adam(0.1)).fit(train, 30, validation=test, progress=False)
    assert history["loss"][-1] < history["loss"][0]


LINES = "in/0.png,cat,1,2\nin/1.png,dog,3,4\n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, r"table.csv is empty: expected the names of columns in its first line: file, label$"),
        (HEAD + LINES, {"label": "lable"}, r"table.csv: unknown column 'lable': .*label"),
        (HEAD + LINES, {"targets": ["z"]}, r"table.csv: unknown column 'z'"),
        (HEAD + LINES + "in/2.png,cat\n", {}, r"table.csv, line 4: got 2 fields, expected 4: file, label, x, y$"),
        (HEAD + LINES + "in/2.png,,1,2\n", {}, r"table.csv, line 4: label is empty, expected a value$"),
        (HEAD + LINES + "in/99.png,cat,1,2\n", {}, r"table.csv, line 4: there is no file .*99.png: expected the path of an image in "),
        (HEAD + LINES + "in/2.png,cat,one,2\n", {"targets": ["y", "x"]}, r"table.csv, line 4: x is 'one', expected a finite number$"),
        (HEAD + LINES + "in/2.png,cat,nan,2\n", {"targets": ["x"]}, r"table.csv, line 4: x is 'nan', expected a finite number$"),
        (HEAD + LINES + 'in/2.png,"cat"s,1,2\n', {}, r"table.csv, line 4: .*: expected a CSV file$"),
        (HEAD + "in/0.png,cat,1,2\n", {}, r"table.csv has only the class 'cat' in the column 'label'"),
        (HEAD, {}, r"table.csv has no class in the column 'label', expected at least two classes$"),
        (HEAD + "in/0.png,cat,1,2\n", {"targets": ["x"]}, r"has one image, so none is left for the test: expected at least two$"),
        (
            HEAD + LINES.replace("dog", "cat"),
            {},
            r"table.csv has only the class 'cat' in the column 'label', expected",
        ),
        (HEAD + LINES, {}, r"table.csv has one image per class, so none is left for the test: expected at least two in some class$"),
        (HEAD + LINES + "../table.csv,cat,1,2\n", {"folder": "in"}, r"there is no file|leads to .*, which is not in "),
    ],
)
def test_what_a_table_lacks(tmp_path, text, options, message):
    path = table(pictures(tmp_path), text)
    if "folder" in options:
        options = {"folder": tmp_path / "in"}
        path.write_text(text.replace("in/", ""), encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        datasets.from_csv(path, **options)
    assert "\n" not in str(caught.value)


def test_tables_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"^cannot read .*none.csv: No such file"):
        datasets.from_csv(tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"table.csv is not in UTF-8: expected a CSV file in UTF-8; save it again$"):
        datasets.from_csv(table(pictures(tmp_path), HEAD + "é", "latin-1"))
    with pytest.raises(ArgumentError, match=r"^targets='x': expected a list of columns, such as targets=\['x'\]$"):
        datasets.from_csv(tmp_path / "table.csv", targets="x")
