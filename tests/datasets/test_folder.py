"""Folders of images."""

import hashlib
import os
import re
import struct

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from nbnet import datasets
from nbnet.errors import ArgumentError, DataError

from .samples import CIFAR, MNIST, paint, pets, write


def test_folder(tmp_path):
    root = pets(tmp_path)
    (root / ".git").mkdir()
    (root / "__MACOSX").mkdir()
    (root / "notes.txt").write_text("hello", encoding="utf-8")
    (root / "cat" / "notes.txt").write_text("hello", encoding="utf-8")
    (root / "cat" / ".hidden.png").write_text("hello", encoding="utf-8")
    (x, y), (x_test, y_test), names = datasets.from_folder(root)
    assert names == ["cat", "dog"]
    assert x.shape == (12, 4, 6, 3)
    assert x_test.shape == (3, 4, 6, 3)
    assert x.dtype == x_test.dtype == np.uint8
    assert y.dtype == y_test.dtype == np.int64
    assert y_test.tolist() == [0, 1, 1]
    seen = []
    for image, label in zip(np.concatenate([x, x_test]), np.concatenate([y, y_test])):
        assert (image == image[0, 0]).all()
        assert image[0, 0, 1:].tolist() == [[50, 250], [100, 200]][label]
        seen.append((int(label), int(image[0, 0, 0])))
    assert sorted(seen) == [(0, i) for i in range(5)] + [(1, i) for i in range(10)]


def test_the_split_depends_on_names_and_seed_alone(tmp_path, monkeypatch):
    root = pets(tmp_path)
    first = datasets.from_folder(root, seed=1)
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: sorted(listdir(path), key=lambda name: hashlib.md5(name.encode()).digest()))
    again = datasets.from_folder(root, seed=1)
    other = datasets.from_folder(root, seed=2)
    for a, b in zip(first[:2], again[:2]):
        assert np.array_equal(a[0], b[0])
        assert np.array_equal(a[1], b[1])
    assert not np.array_equal(first[1][0], other[1][0])
    assert len(datasets.from_folder(root, test_fraction=0.4)[1][1]) == 6


def test_train_and_test_folders(tmp_path):
    pets(tmp_path / "train", 2, 3)
    for i in range(2):
        paint(tmp_path / "test" / "dog" / f"{i}.png", (i + 7, 100, 200))
    (x, y), (x_test, y_test), names = datasets.from_folder(tmp_path)
    assert names == ["cat", "dog"]
    assert y.tolist() == [0, 0, 1, 1, 1]
    assert y_test.tolist() == [1, 1]  # the class of the training folder, though it is the only one here
    assert x[:, 0, 0, 0].tolist() == [0, 1, 0, 1, 2]
    assert x_test[:, 0, 0, 0].tolist() == [7, 8]
    paint(tmp_path / "test" / "bird" / "0.png", (1, 2, 3))
    with pytest.raises(DataError, match=r"test has the class 'bird', which .*train does not have: expected cat, dog"):
        datasets.from_folder(tmp_path)


@pytest.mark.parametrize("names", ["train val", "train valid", "train validation", "Train Test", "TRAIN VAL", "train test"])
def test_other_names_of_train_and_test(tmp_path, names):
    train, test = names.split()
    pets(tmp_path / train, 2, 3)
    pets(tmp_path / test, 1, 1)
    (tmp_path / "labels").mkdir()
    for held_out in ("test", "validation"):
        (_, y), (x_test, y_test), classes = datasets.from_folder(tmp_path, held_out=held_out)
        assert (y.tolist(), y_test.tolist(), len(x_test), classes) == ([0, 0, 1, 1, 1], [0, 1], 2, ["cat", "dog"])


def test_train_validation_and_test(tmp_path):
    pets(tmp_path / "train", 2, 3)
    pets(tmp_path / "test", 1, 1)
    pets(tmp_path / "Val", 0, 2)
    assert datasets.from_folder(tmp_path)[1][1].tolist() == [0, 1]
    assert datasets.from_folder(tmp_path, held_out="validation")[1][1].tolist() == [1, 1]
    assert datasets.split_folders(tmp_path) == {
        "train": tmp_path / "train",
        "test": tmp_path / "test",
        "validation": tmp_path / "Val",
    }
    paint(tmp_path / "Val" / "bird" / "0.png", (1, 2, 3))
    with pytest.raises(DataError, match=r"Val has the class 'bird', which .*train does not have"):
        datasets.from_folder(tmp_path, held_out="validation")
    datasets.from_folder(tmp_path)
    with pytest.raises(ArgumentError, match="unknown part 'val': choose one of test, validation"):
        datasets.from_folder(tmp_path, held_out="val")
    pets(tmp_path / "valid", 1, 1)
    with pytest.raises(DataError, match=r"has Val and valid: expected one folder for the validation images; rename the other"):
        datasets.from_folder(tmp_path)
    (tmp_path / "valid").rename(tmp_path / "more")
    datasets.from_folder(tmp_path)


def test_images_in_folders_of_a_class(tmp_path):
    """The message has two ways out, for two layouts."""
    pets(tmp_path / "a", 2, 2)
    pets(tmp_path / "b", 2, 2)
    words = r"a has no image \(.*\), only cat, dog; images in folders of a class are not read: move them up, or give (.*) if its folders"
    with pytest.raises(DataError, match=words) as error:
        datasets.from_folder(tmp_path)
    root = re.search(words, str(error.value))[1]
    assert datasets.from_folder(root)[2] == ["cat", "dog"]
    for path in [*tmp_path.rglob("*.png"), *tmp_path.rglob("*.PNG")]:
        path.rename(path.parents[1] / f"{path.parent.name}{path.name}")
    assert datasets.from_folder(tmp_path)[2] == ["a", "b"]
    (tmp_path / "train").mkdir()
    for name in "ab":
        (tmp_path / name).rename(tmp_path / "train" / name)
    with pytest.raises(DataError, match=r"has only the sub-folder train: expected a sub-folder of images for each class"):
        datasets.from_folder(tmp_path)


def test_train_and_test_may_be_classes(tmp_path):
    for i in range(5):
        paint(tmp_path / "train" / f"{i}.png", (i, 0, 0))
        paint(tmp_path / "test" / f"{i}.png", (i, 9, 0))
    assert datasets.from_folder(tmp_path)[2] == ["test", "train"]


def test_grey_is_found_in_the_data(tmp_path):
    paint(tmp_path / "a.png", 10, mode="L")
    paint(tmp_path / "b.png", 1, mode="1")
    paint(tmp_path / "c.png", (30, 30, 30))
    colour = paint(tmp_path / "d.png", (30, 30, 31))
    grey = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    assert datasets.read_images(grey[:2])[:, 0, 0].tolist() == [[10], [255]]
    x = datasets.read_images(grey)
    assert x.shape == (3, 4, 6, 1)
    assert x[:, 0, 0, 0].tolist() == [10, 255, 30]
    assert x.flags.c_contiguous
    assert datasets.read_images([*grey, colour])[:, 0, 0].tolist() == [[10] * 3, [255] * 3, [30] * 3, [30, 30, 31]]
    assert datasets.read_images(grey, channels=3).shape == (3, 4, 6, 3)
    assert datasets.read_images([colour], channels=1)[0, 0, 0].tolist() == [30]
    red = paint(tmp_path / "red.png", (255, 0, 0))
    assert datasets.read_images([red], channels=1)[0, 0, 0].tolist() == [76]  # 0.299 * 255


def test_resizing_takes_the_whole_image(tmp_path):
    picture = np.zeros((4, 8, 3), np.uint8)
    picture[:, 4:] = (200, 100, 50)
    Image.fromarray(picture).save(tmp_path / "a.png")
    x = datasets.read_images([tmp_path / "a.png"], size=(2, 2))
    half = datasets.read_images([tmp_path / "a.png"], size=(4, 8))
    assert np.array_equal(half[0], picture)
    assert x.shape == (1, 2, 2, 3)
    assert (x[0, :, 0, 0] < x[0, :, 1, 0]).all()
    assert np.array_equal(x[0, 0], x[0, 1])
    assert x[0, :, :, 0].sum() == 2 * 200  # the mean of the whole image stays
    assert datasets.read_images([tmp_path / "a.png"], size=3).shape == (1, 3, 3, 3)
    assert datasets.read_images([tmp_path / "a.png"], size=(1, 2)).shape == (1, 1, 2, 3)
    assert datasets.read_images([tmp_path / "a.png"], size=(2, 1)).shape == (1, 2, 1, 3)


def test_transparent_parts_become_white(tmp_path):
    paint(tmp_path / "a.png", (0, 0, 0, 0), mode="RGBA")
    paint(tmp_path / "b.png", (0, 255), mode="LA")
    paint(tmp_path / "c.png", (9, 9, 9), transparency=(9, 9, 9))
    assert datasets.read_images([tmp_path / name for name in ("a.png", "b.png", "c.png")])[:, 0, 0, 0].tolist() == [255, 0, 255]


def test_a_turned_photograph_is_turned_back(tmp_path):
    picture = np.zeros((8, 16, 3), np.uint8)
    picture[:, 8:] = 255
    turned = Image.fromarray(np.rot90(picture))  # as a camera held upright stores it
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    turned.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(datasets.read_images([tmp_path / "a.png"], channels=3)[0], picture)


@pytest.mark.parametrize("turn", range(10))
def test_every_turn(tmp_path, turn):
    """As Pillow turns it, but no other tag is looked at: some versions fail on numbers such as 0/0."""
    picture = Image.fromarray(np.arange(6 * 4 * 3, dtype=np.uint8).reshape(4, 6, 3))
    exif = Image.Exif()
    exif[0x0112] = turn
    picture.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(datasets.read_images([tmp_path / "a.png"], channels=3)[0], upright)
    assert (upright.shape[:2] == (6, 4)) == (turn in (5, 6, 7, 8))


def test_a_turned_photograph_with_numbers_that_are_none(tmp_path):
    """A telephone that does not know where it is writes 0/0 for its position; here also for the resolution."""
    entries = [(0x0112, 3, 1, struct.pack("<H", 6)), (0x011A, 5, 1, struct.pack("<I", 62)), (0x8825, 4, 1, struct.pack("<I", 70))]
    fields = b"".join(struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0") for tag, kind, count, value in entries)
    place = struct.pack("<HHHII", 1, 2, 5, 3, 88) + bytes(4)  # three rational numbers, which begin at 88
    exif = b"II*\0" + struct.pack("<IH", 8, len(entries)) + fields + bytes(4)
    exif = exif.ljust(62, b"\0") + bytes(8) + place + bytes(24)
    picture = Image.fromarray(np.zeros((12, 20, 3), np.uint8))
    picture.save(tmp_path / "a.jpg", exif=b"Exif\0\0" + exif)
    assert datasets.read_images([tmp_path / "a.jpg"]).shape == (1, 20, 12, 1)


@pytest.mark.parametrize(
    ("suffix", "mode"), [("jpg", "RGB"), ("jpeg", "L"), ("bmp", "RGB"), ("gif", "P"), ("tiff", "CMYK"), ("webp", "RGB")]
)
def test_formats(tmp_path, suffix, mode):
    root = tmp_path
    for kind in ("a", "b"):
        for i in range(2):
            paint(root / kind / f"{i}.{suffix}", 0, (8, 8), mode)
    (x, _), _, _ = datasets.from_folder(root)
    assert x.shape == (2, 8, 8, 1)


def damage(root):
    path = root / "dog" / "03.png"
    path.write_bytes(path.read_bytes()[:-30])


def sixteen_bits(root):
    Image.fromarray(np.zeros((4, 6), np.uint16)).save(root / "dog" / "03.png")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda root: paint(root / "dog" / "03.png", (1, 2, 3), (5, 6)),
            r"dog/03.png has 5x6 pixels but .*/cat/0\d.PNG has 4x6: expected one size; give size=\(height, width\), as in size=\(4, 6\)",
        ),
        (damage, "cannot read the image .*dog/03.png: .*; replace or remove it"),
        (
            lambda root: (root / "dog" / "03.png").write_bytes(b""),
            "dog/03.png is not an image that nbnet reads: expected PNG, JPEG",
        ),
        (lambda root: (root / "dog" / "03.png").write_bytes(b"hello"), "dog/03.png is not an image that nbnet reads"),
        (sixteen_bits, r"dog/03.png has more than 8 bits per channel \(Pillow's mode I.*\): expected 8; save it as 8-bit grey or RGB"),
        (lambda root: (root / "emu").mkdir(), "emu is empty: expected images"),
        (lambda root: write(root / "emu", {"a.txt": b""}), r"emu has no image \(.png, .jpg, .*\), only a.txt"),
    ],
)
def test_bad_folders(tmp_path, spoil, words):
    spoil(pets(tmp_path))
    with pytest.raises(DataError, match=words) as error:
        datasets.from_folder(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_folders_that_are_something_else(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*nothing: expected a folder with one sub-folder of images per class"):
        datasets.from_folder(tmp_path / "nothing")
    with pytest.raises(DataError, match="is empty: expected a folder with one sub-folder of images per class"):
        datasets.from_folder(tmp_path)
    paint(tmp_path / "loose.png", 0)
    with pytest.raises(DataError, match=r"has no sub-folder, only loose.png: expected a sub-folder of images for each class, at least 2"):
        datasets.from_folder(tmp_path)
    with pytest.raises(DataError, match=r"loose.png is a file: expected a folder"):
        datasets.from_folder(tmp_path / "loose.png")
    paint(tmp_path / "cat" / "1.png", 0)
    with pytest.raises(DataError, match="has only the sub-folder cat: expected a sub-folder of images for each class, at least 2"):
        datasets.from_folder(tmp_path)
    paint(tmp_path / "dog" / "1.png", 0)
    with pytest.raises(DataError, match="has one image per class, so none is left for the test"):
        datasets.from_folder(tmp_path)
    with pytest.raises(DataError, match=r"these look like the files of mnist: use load\('mnist', data_dir=...\)"):
        datasets.from_folder(write(tmp_path / "m", MNIST, gz=True))
    with pytest.raises(DataError, match=r"these look like the files of cifar10"):
        datasets.from_folder(write(tmp_path / "c", CIFAR))
    with pytest.raises(DataError, match="no image given: expected at least one file"):
        datasets.read_images([])
    with pytest.raises(DataError, match=r"cannot read the image .*gone.png: No such file or directory"):
        datasets.read_images([tmp_path / "gone.png"])


@pytest.mark.parametrize("size", [0, (0, 4), (4,), (4, 5, 6), 2.5, "32", (4.0, 4)])
def test_bad_size(tmp_path, size):
    with pytest.raises(ArgumentError, match=r"size=.*: expected \(height, width\) in pixels, such as \(32, 32\)"):
        datasets.from_folder(pets(tmp_path), size=size)


def test_bad_channels_and_fraction(tmp_path):
    pets(tmp_path)
    with pytest.raises(ArgumentError, match=r"channels=4: expected 1 \(grey\), 3 \(RGB\) or None"):
        datasets.from_folder(tmp_path, channels=4)
    with pytest.raises(ArgumentError, match=r"test_fraction=1.5: expected a number between 0 and 1"):
        datasets.from_folder(tmp_path, test_fraction=1.5)


# ------------------------------------------------------------------------------------------- folders and files of others


def test_links_stay_in_the_folder(tmp_path):
    root, secret = pets(tmp_path / "pets"), paint(tmp_path / "secret" / "0.png", (1, 2, 3))
    (root / "cat" / "link.png").symlink_to(root / "cat" / "00.PNG")
    assert len(datasets.from_folder(root)[0][1]) == 13
    moved = root.rename(tmp_path / "moved")
    (tmp_path / "link").symlink_to(moved)
    (moved / "cat" / "link.png").unlink()
    assert len(datasets.from_folder(tmp_path / "link")[0][1]) == 12  # the folder itself may be a link
    for link, target in ((moved / "cat" / "link.png", secret), (moved / "bird", secret.parent), (moved / "bird", tmp_path)):
        link.symlink_to(target)
        if target == tmp_path:
            paint(tmp_path / "0.png", 0)
        with pytest.raises(DataError, match=rf"{link} leads to {target}, which is not in {moved}: expected images in the folder; copy"):
            datasets.from_folder(moved)
        link.unlink()
    split = pets(tmp_path / "split" / "test").parent
    (split / "train").symlink_to(moved)
    with pytest.raises(DataError, match=rf"{split}/train/\w+ leads to {moved}/\w+, which is not in {split}"):
        datasets.from_folder(split)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes in folders")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "0.png")
    with pytest.raises(DataError, match=r"0.png is not a file: expected an image"):
        datasets.read_images([tmp_path / "0.png"])


@pytest.mark.parametrize("other", ["ICO", "TGA", "DDS", "SGI", "PCX", "JPEG2000", "BLP"])
def test_other_formats_are_not_opened(tmp_path, other):
    """Whatever the suffix says: the fewer decoders see a file, the better."""
    path = tmp_path / "0.png"
    try:
        Image.new("P" if other == "BLP" else "RGB", (8, 8)).save(path, other)
    except OSError:
        pytest.skip(f"Pillow was built without {other}")
    with pytest.raises(DataError, match=r"0.png is not an image that nbnet reads: expected PNG, JPEG, BMP, GIF, WEBP, TIFF, PPM; replace"):
        datasets.read_images([path])


def test_the_formats_are_those_of_the_documentation():
    assert "Formats: PNG, JPEG, BMP, GIF, WebP, TIFF, PPM and PGM." in datasets.read_images.__doc__


@pytest.mark.parametrize(
    "error", [RuntimeError, NotImplementedError, KeyError, MemoryError, DeprecationWarning, Image.DecompressionBombError]
)
def test_whatever_a_decoder_raises(tmp_path, monkeypatch, error):
    def fail(self):
        raise error("broken inside")

    paint(tmp_path / "0.png", (1, 2, 3))
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(DataError, match=r"cannot read the image .*0.png: .*broken inside.*; replace or remove it"):
        datasets.read_images([tmp_path / "0.png"])


def test_an_image_that_is_a_bomb(tmp_path, monkeypatch):
    paint(tmp_path / "0.png", (1, 2, 3), (100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"cannot read the image .*0.png: Image size \(10000 pixels\) exceeds limit"):
        datasets.read_images([tmp_path / "0.png"])


def test_class_names_are_lines_of_text(tmp_path):
    root = pets(tmp_path)
    paint(root / "a\nb" / "0.png", 0)
    with pytest.raises(DataError, match=r"a folder cannot be a class: it\[0\] is 'a\\nb', expected a line of text"):
        datasets.from_folder(root)
