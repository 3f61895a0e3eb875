"""Tables of images: of PyArrow, of Hugging Face (whose objects are imitated here), and mappings of columns."""

import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from nbnet import datasets
from nbnet.errors import ArgumentError, DataError


def png(value, size=(4, 6), mode="RGB", kind="PNG"):
    buffer = io.BytesIO()
    Image.new(mode, size[::-1], value).save(buffer, kind)
    return buffer.getvalue()


IMAGES = [png((i, 50, 100)) for i in range(10)]
LABELS = [0, 1] * 5


def metadata(names, label="label"):
    return {b"huggingface": json.dumps({"info": {"features": {label: {"names": names, "_type": "ClassLabel"}}}}).encode()}


class Table:
    """What from_arrow uses of a pyarrow.Table."""

    def __init__(self, columns, schema=None):
        self.columns = list(columns.values())
        self.column_names = list(columns)
        self._columns = columns
        self.schema = SimpleNamespace(metadata=schema)

    def column(self, name):
        return SimpleNamespace(to_pylist=lambda: list(self._columns[name]))


class HuggingFace:
    """What from_arrow uses of a Dataset of Hugging Face: rows in an order of its own, and features. Its table has all rows."""

    def __init__(self, columns, rows, names):
        self.data = Table(columns)
        self.column_names = list(columns)
        self.features = {"label": SimpleNamespace(names=names), "image": SimpleNamespace()}
        self._columns, self._rows = columns, rows

    def with_format(self, kind):
        assert kind == "arrow"
        return self

    def __getitem__(self, rows):
        return Table({name: [column[row] for row in self._rows[rows]] for name, column in self._columns.items()})


def structs(images):
    return [{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(images)]


def check(data, names):
    (x, y), (x_test, y_test), class_names = data
    assert x.dtype == x_test.dtype == np.uint8
    assert y.dtype == y_test.dtype == np.int64
    assert (x.shape, x_test.shape) == ((8, 4, 6, 3), (2, 4, 6, 3))
    assert sorted([*x[:, 0, 0, 0], *x_test[:, 0, 0, 0]]) == list(range(10))
    for images, labels in ((x, y), (x_test, y_test)):
        assert (images == images[:, :1, :1]).all()
        assert (images[:, 0, 0, 0] % 2 == labels).all()
    assert sorted(y_test) == [0, 1]
    assert class_names == names


@pytest.mark.parametrize("kind", ["a table", "a dict of lists", "bytes in place of structs", "names as labels"])
def test_one_table_is_split(kind):
    names = ["even", "odd"]
    columns = {"id": range(10), "image": structs(IMAGES), "label": LABELS}
    if kind == "a dict of lists":
        check(datasets.from_arrow(columns), ["0", "1"])
    elif kind == "names as labels":
        check(datasets.from_arrow(Table(columns | {"label": [names[label] for label in LABELS]})), names)
    else:
        columns |= {"image": IMAGES} if kind == "bytes in place of structs" else {}
        check(datasets.from_arrow(Table(columns, metadata(names))), names)


def test_names_as_labels_need_no_names_in_the_metadata():
    check(datasets.from_arrow(Table(columns(label=["a", "b"] * 5), metadata(["x", "y", "z"]))), ["a", "b"])


def test_a_table_of_pandas():
    pandas = pytest.importorskip("pandas")
    check(datasets.from_arrow(pandas.DataFrame({"image": structs(IMAGES), "label": LABELS})), ["0", "1"])


def test_a_table_of_pyarrow():
    pyarrow = pytest.importorskip("pyarrow")
    struct = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    columns = {"image": pyarrow.array(structs(IMAGES), struct), "label": pyarrow.array(LABELS, pyarrow.int64())}
    table = pyarrow.table(columns)
    check(datasets.from_arrow(table), ["0", "1"])
    check(datasets.from_arrow(table.replace_schema_metadata(metadata(["even", "odd"]))), ["even", "odd"])
    chunks = pyarrow.concat_tables([table.slice(0, 3), table.slice(3)])
    check(datasets.from_arrow(chunks.rename_columns(["img", "y"]), "img", "y"), ["0", "1"])
    check(datasets.from_arrow(table.to_batches()[0]), ["0", "1"])
    parquet = pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata(metadata(["even", "odd"])), file)
    check(datasets.from_arrow(parquet.read_table(file)), ["even", "odd"])


def test_a_dataset_of_hugging_face():
    """Its rows are those that were chosen of its table, and its class names are its features'."""
    columns = {"image": structs([*IMAGES, png(0), png(0)]), "label": [*LABELS, 1, -1]}
    check(datasets.from_arrow(HuggingFace(columns, [9, *range(9)], ["even", "odd"])), ["even", "odd"])


@pytest.mark.parametrize(("name", "held_out"), [("test", "test"), ("validation", "validation"), ("valid", "validation")])
def test_a_table_for_each_part(name, held_out):
    names = ["a", "b", "c"]
    train = HuggingFace({"image": structs(IMAGES), "label": LABELS}, list(range(10)), names)
    test = HuggingFace({"image": structs(IMAGES[:3]), "label": [2, 0, 1]}, [0, 1, 2], names)
    parts = {"train": train, name: test, "unsupervised": None}
    (x, y), (x_test, y_test), class_names = datasets.from_arrow(parts)
    assert x[:, 0, 0, 0].tolist() == list(range(10))
    assert y.tolist() == LABELS
    assert x_test[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert y_test.tolist() == [2, 0, 1]
    assert class_names == names
    parts[name] = HuggingFace({"image": structs(IMAGES[:3]), "label": [0, -1, 1]}, [0, 1, 2], names)
    with pytest.raises(DataError, match=f"^row 1 of 'label' of {held_out} is -1, which is not a class: expected 0, 1, 2$"):
        datasets.from_arrow(parts)


def test_class_numbers_without_names_are_sorted_as_numbers():
    (_, y), (_, y_test), names = datasets.from_arrow({"image": IMAGES, "label": np.array([10, 9, -1, 10, 9, -1, 10, 9, -1, 10])})
    assert names == ["-1", "9", "10"]
    assert np.bincount([*y, *y_test]).tolist() == [3, 3, 4]


def test_sizes_channels_and_memory():
    grey = {"image": [png(i, mode="L") for i in range(10)], "label": LABELS}
    assert datasets.from_arrow(grey)[0][0].shape == (8, 4, 6, 1)
    assert datasets.from_arrow(grey, size=(2, 3), channels=3)[1][0].shape == (2, 2, 3, 3)
    whole, lazy = datasets.from_arrow(grey, seed=3), datasets.from_arrow(grey, seed=3, memory_limit=100)
    assert not isinstance(lazy[0][0], np.ndarray)
    for a, b in zip(whole[:2], lazy[:2]):
        assert np.array_equal(a[0], b[0][:])
        assert np.array_equal(a[1], b[1])
    assert len(datasets.from_arrow(grey, test_fraction=0.4)[1][1]) == 4


def columns(**changes):
    return {"image": structs(IMAGES), "label": LABELS} | changes


def replaced(values, row, value):
    return [*values[:row], value, *values[row + 1 :]]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (columns(image=replaced(IMAGES, 3, b"hello")), "row 3 of 'image' is not an image that nbnet reads: .*; replace or remove it"),
        (columns(image=replaced(IMAGES, 3, IMAGES[3][:-30])), "cannot read the image row 3 of 'image': .*; replace or remove it"),
        (
            columns(image=replaced(IMAGES, 3, png((1, 2, 3), kind="ICO", size=(16, 16)))),
            "row 3 of 'image' is not an image that nbnet reads",
        ),
        (columns(image=replaced(IMAGES, 3, None)), r"row 3 of 'image' is None, expected the bytes of an image file \(PNG, JPEG, ...\)"),
        (columns(image=replaced(IMAGES, 3, "cat.png")), "row 3 of 'image' is 'cat.png', expected the bytes of an image file"),
        (
            columns(image=replaced(structs(IMAGES), 3, {"bytes": None, "path": "/etc/passwd"})),
            "row 3 of 'image' has a path and no bytes: expected the image itself; for files use from_folder or from_csv",
        ),
        (columns(image=replaced(IMAGES, 3, png((1, 2, 3), (5, 6)))), "row 3 of 'image' has 5x6 pixels but row 0 of 'image' has 4x6"),
        (columns(label=replaced(LABELS, 3, None)), "row 3 of 'label' is None, expected a class number or a class name"),
        (columns(label=replaced(LABELS, 3, 0.5)), "row 3 of 'label' is 0.5, expected a class number"),
        (columns(label=LABELS[:9]), "'image' has 10 rows and 'label' 9: expected equal counts"),
        (columns(label=[7] * 10), "'label' has only the class '7', expected at least two classes"),
        (columns(image=[], label=[]), "'label' has no class, expected at least two classes"),
        (columns(label=list(range(10))), "the table has one image per class, so none is left for the test: expected at least two"),
        (columns(label=replaced(["a", "b"] * 5, 3, "a\nb")), "the classes of 'label' cannot be used: "),
        ({"image": IMAGES, "lable": LABELS}, "the table has no 'label': unknown column 'label': did you mean 'lable'"),
        (Table({"picture": IMAGES, "label": LABELS}), "the table has no 'image': unknown column 'image': choose one of picture, label"),
        ({"train": columns()}, "got train, expected tables train and test, or a column 'image'"),
        ({}, "got nothing, expected tables train and test, or a column 'image'"),
        (Table(columns(), metadata(["a", "b\0"])), "the classes of 'label' cannot be used: "),
        (Table(columns(), metadata(["a"])), "'label' has only the class 'a', expected at least two classes"),
        (
            Table(columns(label=[0, 1, 2] * 3 + [3]), metadata(["a", "b", "c"])),
            "row 9 of 'label' is 3, which is not a class: expected 0, 1",
        ),
    ],
)
def test_bad_tables(table, words):
    with pytest.raises(DataError, match=words) as error:
        datasets.from_arrow(table)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "table", [5, None, [1, 2], IMAGES, IMAGES[0], "pictures.parquet", SimpleNamespace(with_format=lambda kind: iter([]))]
)
def test_what_is_no_table(table):
    words = f"got a {type(table).__name__}, expected a pyarrow.Table, a Dataset of Hugging Face, or a mapping of names to columns"
    with pytest.raises(ArgumentError, match=re.escape(words)):
        datasets.from_arrow(table)


@pytest.mark.parametrize(
    "damaged",
    [
        None,
        {},
        {b"huggingface": b"{"},
        {b"huggingface": b"[]"},
        {b"huggingface": b"[" * 99_999},
        metadata("ab"),
        metadata(["a", "b"], "y"),
    ],
)
def test_metadata_without_names(damaged):
    check(datasets.from_arrow(Table(columns(), damaged)), ["0", "1"])


def test_a_picture_of_too_many_pixels(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match=r"cannot read the image row 0 of 'image': Image size \(24 pixels\) exceeds limit of 20 pixels"):
        datasets.from_arrow(columns())


def two(columns, names=("x", "y")):
    return Table({"image": IMAGES, "label": LABELS} | columns, metadata(list(names)))


def test_two_columns_of_one_name():
    table = Table({"image": IMAGES, "label": LABELS})
    table.column_names += ["image"]
    with pytest.raises(DataError, match="the table has 2 columns 'image', expected one: give them different names"):
        datasets.from_arrow(table)


def test_labels_of_numpy():
    for labels, names in ((np.array(LABELS) > 0, ["0", "1"]), (np.array(["even", "odd"])[LABELS], ["even", "odd"])):
        found = datasets.from_arrow({"image": IMAGES, "label": labels})
        check(found, names)
        assert {type(name) for name in found[2]} == {str}


def test_class_names_of_two_tables_in_another_order():
    check_names = {"train": two({}), "test": two({}, ("y", "x"))}
    with pytest.raises(DataError, match="the classes of test are y, x, expected those of train, x, y, in that order"):
        datasets.from_arrow(check_names)
    assert datasets.from_arrow({"train": two({}), "test": two({})})[2] == ["x", "y"]


def test_a_test_without_rows():
    with pytest.raises(DataError, match="the table of test has no rows, expected at least one image"):
        datasets.from_arrow({"train": two({}), "test": two({"image": [], "label": []})})
