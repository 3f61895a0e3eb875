"""What error messages of data sets say is executed here, and works."""

import pytest
from messages import code, said

from nbnet import datasets

from .samples import CIFAR, CIFAR_100, EMNIST, MNIST, SVHN, paint, pets, write


def test_sizes_that_differ(tmp_path):
    paint(pets(tmp_path) / "dog" / "03.png", (1, 2, 3), (5, 6))
    size = code(r"; give size=\(height, width\), as in (size=\(4, 6\))$", said(lambda: datasets.from_folder(tmp_path)))
    assert datasets.from_folder(tmp_path, **eval(f"dict({size})"))[0][0].shape[1:3] == (4, 6)


def test_files_of_a_data_set_as_a_folder_of_images(tmp_path):
    write(tmp_path, MNIST)
    call = code(r": use (load\('mnist', data_dir=)\.\.\.\)$", said(lambda: datasets.from_folder(tmp_path)))
    assert len(eval(f"datasets.{call}{str(tmp_path)!r})", {"datasets": datasets})[2]) == 10


@pytest.mark.parametrize(("name", "files"), [("emnist", EMNIST), ("cifar10", CIFAR), ("cifar100", CIFAR_100), ("svhn", SVHN)])
def test_files_of_other_data_sets(tmp_path, name, files):
    words = f"; these look like the files of {name}: use load"
    assert words in said(lambda: datasets.from_folder(write(tmp_path, files)))


def test_a_folder_as_the_name_of_a_data_set(tmp_path):
    call = code(r"; for a folder of images use (from_folder\('.*'\))$", said(lambda: datasets.load(str(pets(tmp_path)))))
    assert eval(f"datasets.{call}", {"datasets": datasets})[2] == ["cat", "dog"]


def test_options_that_are_left_out(tmp_path):
    assert code(r"leave (data_dir) out$", said(lambda: datasets.load("digits", tmp_path)))
    assert code(r"leave (data_dir) out$", said(lambda: datasets.open_data(pets(tmp_path), tmp_path)))
    assert code(r"leave (them) out$", said(lambda: datasets.open_data("digits", size=8)))
    assert len(datasets.load("digits")[2]) == len(datasets.open_data("digits")[2]) == 10
    assert len(datasets.open_data(tmp_path)[2]) == 2


def test_files_that_are_removed(tmp_path):
    root = pets(tmp_path)
    for content in (b"", b"hello", (root / "dog" / "03.png").read_bytes()[:-30]):
        (root / "dog" / "zz.png").write_bytes(content)
        assert code(r"zz.png.*; replace or (remove) it$", said(lambda: datasets.from_folder(root)))
        (root / "dog" / "zz.png").unlink()
        assert len(datasets.from_folder(root)[0][1]) == 12


def test_names_of_gzip_files(tmp_path):
    write(tmp_path, MNIST)
    plain = next(tmp_path.iterdir())
    packed = plain.rename(tmp_path / f"{plain.name}.gz")
    assert code(r"or (remove .gz) from its name", said(lambda: datasets.load("mnist", tmp_path)))
    packed.rename(plain)
    datasets.load("mnist", tmp_path)
