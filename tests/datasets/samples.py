"""Small data sets of each kind, and what reading them should give."""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib

import numpy as np
from PIL import Image

from nbnet.datasets import cifar


def idx_bytes(array):
    array = np.ascontiguousarray(array, np.uint8)
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


X, Y = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
IMAGES, LABELS = np.arange(6 * 5 * 4, dtype=np.uint8).reshape(6, 5, 4), np.array([3, 0, 9, 1, 1, 7], np.uint8)
TEST_IMAGES, TEST_LABELS = IMAGES[:2] + 100, np.array([8, 2], np.uint8)
MNIST = {
    "train-images-idx3-ubyte": idx_bytes(IMAGES),
    "train-labels-idx1-ubyte": idx_bytes(LABELS),
    "t10k-images-idx3-ubyte": idx_bytes(TEST_IMAGES),
    "t10k-labels-idx1-ubyte": idx_bytes(TEST_LABELS),
}


def write(folder, files, gz=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / (name + ".gz" if gz else name)).write_bytes(gzip.compress(data) if gz else data)
    return folder


def flip(data):
    """A gzip file with one bit of its checksum turned."""
    return data[:-8] + bytes([data[-8] ^ 1]) + data[-7:]


def check_mnist(data):
    (x, y), (x_test, y_test), names = data
    assert x.dtype == x_test.dtype == np.uint8
    assert y.dtype == y_test.dtype == np.int64
    assert np.array_equal(x, IMAGES[..., None])
    assert np.array_equal(x_test, TEST_IMAGES[..., None])
    assert (y.tolist(), y_test.tolist()) == (LABELS.tolist(), TEST_LABELS.tolist())
    return names


ARCHIVE = "cifar-10-binary.tar.gz"
RNG = np.random.Generator(np.random.Philox(7))
CIFAR_X = RNG.integers(0, 256, (12, 32, 32, 3), np.uint8)  # two images a file
CIFAR_Y = np.array([0, 9, 5, 4, 3, 3, 2, 1, 8, 7, 6, 0], np.uint8)
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def records(x, y, coarse=b""):
    """Records of CIFAR-10, or, with another label before each, of CIFAR-100."""
    return b"".join(
        coarse + bytes([label]) + b"".join(image[:, :, channel].tobytes() for channel in range(3)) for image, label in zip(x, y)
    )


CIFAR = {name: records(CIFAR_X[2 * i : 2 * i + 2], CIFAR_Y[2 * i : 2 * i + 2]) for i, name in enumerate(cifar.CIFAR10.files)}
CIFAR_100 = {
    "train.bin": records(CIFAR_X[:10], CIFAR_Y[:10] * 11, b"\7"),
    "test.bin": records(CIFAR_X[10:], CIFAR_Y[10:] * 11, b"\7"),
}


def tar_bytes(files, mode="w:gz", folder="cifar-10-batches-bin"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def check_cifar(data, names=NAMES):
    (x, y), (x_test, y_test), class_names = data
    assert x.dtype == x_test.dtype == np.uint8
    assert y.dtype == y_test.dtype == np.int64
    assert np.array_equal(x, CIFAR_X[:10])
    assert np.array_equal(x_test, CIFAR_X[10:])
    assert (y.tolist(), y_test.tolist()) == (CIFAR_Y[:10].tolist(), CIFAR_Y[10:].tolist())
    assert x.flags.c_contiguous
    assert class_names == names


def paint(path, value, size=(4, 6), mode="RGB", **options):
    """An image file of one colour; size is (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size[::-1], value).save(path, **options)
    return path


def pets(root, cats=5, dogs=10):
    for i in reversed(range(dogs)):
        paint(root / "dog" / f"{i:02}.png", (i, 100, 200))
    for i in range(cats):
        paint(root / "cat" / f"{i:02}.PNG", (i, 50, 250))
    return root


def emnist(part, first=0):
    """The files of a part of EMNIST, whose images are stored by columns, and whose labels begin with `first`."""
    return {
        f"emnist-{part}-train-images-idx3-ubyte": idx_bytes(IMAGES.transpose(0, 2, 1)),
        f"emnist-{part}-train-labels-idx1-ubyte": idx_bytes(LABELS + first),
        f"emnist-{part}-test-images-idx3-ubyte": idx_bytes(TEST_IMAGES.transpose(0, 2, 1)),
        f"emnist-{part}-test-labels-idx1-ubyte": idx_bytes(TEST_LABELS + first),
    }


EMNIST = {**emnist("balanced"), **emnist("letters", 1)}


def zip_bytes(files, folder="gzip"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{folder}/", b"")
        for name, data in files.items():
            archive.writestr(f"{folder}/{name}.gz", gzip.compress(data))
    return buffer.getvalue()


def padded(data):
    return data + bytes(-len(data) % 8)


def variable(name, array, kind=9, number=2):
    """A variable of a file of MATLAB 5. kind: of array, 9 is uint8; number: of its values, 2 is uint8."""
    parts = struct.pack("<IIII", 6, 8, kind, 0)
    parts += struct.pack("<II", 5, 4 * array.ndim) + padded(struct.pack(f"<{array.ndim}i", *array.shape))
    parts += struct.pack("<II", 1, len(name)) + padded(name.encode())
    data = array.tobytes("F")
    parts += struct.pack("<II", number, len(data)) + padded(data)
    return struct.pack("<II", 14, len(parts)) + parts


def packed(element):
    data = zlib.compress(element)
    return struct.pack("<II", 15, len(data)) + data


MAT_HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"


def mat(x, y, pack=packed):
    return MAT_HEADER + pack(variable("X", x.transpose(1, 2, 3, 0))) + pack(variable("y", y[:, None]))


SVHN = {
    "train_32x32.mat": mat(CIFAR_X[:10], np.where(CIFAR_Y[:10] == 0, 10, CIFAR_Y[:10]).astype(np.uint8)),
    "test_32x32.mat": mat(CIFAR_X[10:], np.where(CIFAR_Y[10:] == 0, 10, CIFAR_Y[10:]).astype(np.uint8)),
}
