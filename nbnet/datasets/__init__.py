"""Real images, as (x, y), (x_test, y_test), class_names.

x is (N, H, W, C) uint8, y is (N,) int64, class_names[i] is the name of label i.

    load("digits")                                  the 1,797 digits that come with nbnet
    load("mnist", data_dir="folder")                your own copy of the files
    load("cifar10")                                 downloaded once, checked, cached
    from_folder("pictures", size=(32, 32))          your own images, one sub-folder per class
    from_csv("pictures.csv", "pictures")            your own images, with classes or numbers from a table
    from_arrow(table)                               images in a table of PyArrow or of Hugging Face's datasets
"""

from __future__ import annotations

import os
import string
from collections.abc import Callable
from functools import partial

from nbnet.datasets import cifar, digits, download, idx, svhn
from nbnet.datasets.arrow import from_arrow
from nbnet.datasets.files import Dataset, Split
from nbnet.datasets.folder import from_folder, split_folders
from nbnet.datasets.images import Size, read_images
from nbnet.datasets.table import from_csv
from nbnet.errors import ArgumentError, DataError, unknown
from nbnet.functional import checks

__all__ = ["NAMES", "Dataset", "Split", "from_arrow", "from_csv", "from_folder", "load", "open_data", "read_images", "split_folders"]

FASHION_CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
# emnist-balanced-mapping.txt: lower-case letters that look like upper-case ones are of their classes
BALANCED_CLASSES = [*string.digits, *string.ascii_uppercase, *"abdefghnqrt"]


def _emnist(part: str, class_names: list[str], first: int = 0) -> idx.Layout:
    splits = f"emnist-{part}-train", f"emnist-{part}-test"
    return idx.Layout(class_names, splits, first, by_columns=True, archive="gzip.zip", subfolder="gzip")


READERS: dict[str, Callable[..., Dataset]] = {
    "mnist": partial(idx.read_folder, layout=idx.Layout(list(string.digits))),
    "fashion-mnist": partial(idx.read_folder, layout=idx.Layout(FASHION_CLASSES)),
    "kmnist": partial(idx.read_folder, layout=idx.Layout(["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"])),
    "emnist": partial(idx.read_folder, layout=_emnist("balanced", BALANCED_CLASSES)),
    "emnist-letters": partial(idx.read_folder, layout=_emnist("letters", list(string.ascii_uppercase), first=1)),
    "cifar10": partial(cifar.read_folder, layout=cifar.CIFAR10),
    "cifar100": partial(cifar.read_folder, layout=cifar.CIFAR100),
    "svhn": svhn.read_folder,
}
SAME_FILES = {"emnist-letters": "emnist"}  # data sets that are downloaded with another one
NAMES = ("digits", *READERS)


def load(name: str, data_dir: str | os.PathLike[str] | None = None, *, progress: bool | None = None) -> Dataset:
    """A data set by name: (x, y), (x_test, y_test), class_names.

    - digits: 8x8x1, 1,438 and 359 images, part of the package (digits-attribution.txt there).
    - mnist (LeCun, Cortes and Burges 1998), fashion-mnist (Xiao, Rasul and Vollgraf 2017) and kmnist (Clanuwat et al. 2018, cursive
      Japanese): 28x28x1, 10 classes, 60,000 and 10,000 images, IDX files.
    - emnist (Cohen et al. 2017): 28x28x1, digits and letters in 47 classes, the balanced split, 112,800 and 18,800 images; emnist-letters:
      its split of 26 letters, 124,800 and 20,800 images. IDX files, or the archive that has them (562 MB).
    - cifar10 and cifar100 (Krizhevsky 2009): 32x32x3, 10 or 100 classes (the fine labels), 50,000 and 10,000 images, the binary versions,
      as files or as .tar.gz.
    - svhn (Netzer et al. 2011): 32x32x3, the cropped digits, 73,257 and 26,032 images, files of MATLAB.

    Args:
        data_dir: a folder with the data set's files, gzipped or not, with any number of images; a gzipped file may unpack to 1 GiB. There
            is no download then. None: they are downloaded once into the cache folder (the environment variable NBNET_DATA_DIR, or the
            user's cache folder) and checked. A download that was interrupted continues where it stopped.
        progress: whether to draw a progress bar while downloading; None draws one on a terminal and in a notebook.
    Returns:
        x (N, H, W, C) uint8 and y (N,) int64, for training and for the test; class_names, a list of str.
    Raises:
        ArgumentError: the name is unknown, or digits is given a data_dir.
        DataError: a file is missing, truncated, corrupt or mislabelled, or cannot be downloaded.
    """
    if name not in NAMES:
        hint = (
            f"; for a folder of images use from_folder({str(name)!r})" if isinstance(name, os.PathLike) or os.path.isdir(str(name)) else ""
        )
        raise ArgumentError(unknown("data set", name, NAMES) + hint)
    if name == "digits":
        if data_dir is not None:
            raise ArgumentError(f"digits are part of nbnet, got data_dir={str(data_dir)!r}: leave data_dir out")
        return digits.read()
    source = SAME_FILES.get(name, name)
    given = None if data_dir is None else checks.path(data_dir, "data_dir", "my/mnist")
    folder = download.fetch(source, progress) if given is None else given.expanduser()
    return READERS[name](folder, url=download.MIRRORS[source][0])


def open_data(
    name_or_path: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    size: Size = None,
    channels: int | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """`load` for the name of a data set, `from_folder` for the path of a folder (write ./mnist for a folder of that name).

    Raises:
        ArgumentError: neither a known name nor a path, or an option does not apply. DataError: as in load and from_folder.
    """
    if name_or_path in NAMES:
        if size is not None or channels is not None:
            raise ArgumentError(f"size and channels apply to folders of images, not to {name_or_path!r}: leave them out")
        return load(str(name_or_path), data_dir)
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise ArgumentError(unknown("data set", name_or_path, NAMES) + ", or the path of a folder of images")
    path = os.path.expanduser(os.fspath(name_or_path))
    if not os.path.exists(path):
        if isinstance(name_or_path, os.PathLike) or any(mark in path for mark in (os.sep, "/", ".")):
            raise DataError(f"there is no folder {path}: expected a folder of images, or one of {', '.join(NAMES)}")
        raise ArgumentError(unknown("data set", path, NAMES) + ", or the path of a folder of images")
    if data_dir is not None:
        raise ArgumentError(f"data_dir applies to {', '.join(NAMES[1:])}, and {path} is a folder of images: leave data_dir out")
    return from_folder(path, size, channels, test_fraction, seed)
