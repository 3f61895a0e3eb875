"""Data sets by name or by path, and the real ones where they are."""

import os

import numpy as np
import pytest

from nbnet import datasets
from nbnet.errors import ArgumentError, DataError

from .samples import MNIST, check_mnist, pets, write


def test_unknown_names(tmp_path):
    with pytest.raises(ArgumentError, match="unknown data set 'fashon-mnist': did you mean 'fashion-mnist'"):
        datasets.load("fashon-mnist")
    with pytest.raises(ArgumentError, match=r"for a folder of images use from_folder\('.*'\)"):
        datasets.load(str(tmp_path))
    with pytest.raises(ArgumentError, match=r"digits are part of nbnet, got data_dir='here': leave data_dir out"):
        datasets.load("digits", "here")


def test_open(tmp_path, monkeypatch):
    assert len(datasets.open_data("digits")[0][0]) == 1438
    check_mnist(datasets.open_data("mnist", write(tmp_path / "m", MNIST)))
    pets(tmp_path / "pets")
    (x, _), _, names = datasets.open_data(tmp_path / "pets", size=(2, 3), test_fraction=0.4)
    assert x.shape == (9, 2, 3, 3)
    assert names == ["cat", "dog"]
    monkeypatch.chdir(tmp_path)
    assert len(datasets.open_data("pets")[0][0]) == 12
    with pytest.raises(ArgumentError, match=r"unknown data set 'minst': did you mean 'mnist'.*or the path of a folder of images"):
        datasets.open_data("minst")
    with pytest.raises(ArgumentError, match="unknown data set 5"):
        datasets.open_data(5)
    with pytest.raises(DataError, match=r"there is no folder ./minst: expected a folder of images, or one of digits, mnist"):
        datasets.open_data("./minst")
    with pytest.raises(ArgumentError, match="size and channels apply to folders of images, not to 'digits'"):
        datasets.open_data("digits", size=8)
    with pytest.raises(ArgumentError, match=r"data_dir applies to mnist, .*, svhn, and pets is a folder of images"):
        datasets.open_data("pets", "here")


if "NBNET_TEST_DATA" in os.environ:  # a folder with mnist and cifar-10-batches-bin

    @pytest.mark.parametrize(
        ("name", "folder", "shape"), [("mnist", "mnist", (28, 28, 1)), ("cifar10", "cifar-10-batches-bin", (32, 32, 3))]
    )
    def test_real_files(name, folder, shape):
        (x, y), (x_test, y_test), names = datasets.load(name, os.path.join(os.environ["NBNET_TEST_DATA"], folder))
        assert x.shape == (len(y), *shape)
        assert x_test.shape == (len(y_test), *shape)
        assert len(names) == 10
        for labels in (y, y_test):
            assert (np.bincount(labels, minlength=10) > 0).all()


@pytest.mark.parametrize("folder", ["", 3, b"mnist"], ids=repr)
def test_what_is_no_folder(folder):
    with pytest.raises(ArgumentError, match=f"^data_dir={folder!r}: expected a path, such as 'my/mnist'$"):
        datasets.load("mnist", folder)
