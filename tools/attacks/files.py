"""Damaged files: checkpoints, run folders, IDX, CIFAR and image files with a few bytes or values changed.

Reading one either works or raises an NbnetError, and an error changes nothing: not the trainer, not the model, not the folder.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gzip
import io
import itertools
import json
import random
import struct
import tarfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import nbnet as nb
from nbnet import cli, storage
from nbnet.cli import runs
from nbnet.datasets import cifar, load, read_images
from nbnet.datasets.images import FORMATS
from nbnet.errors import NbnetError

Case = Callable[[random.Random], None]  # damages something, reads it and checks

DEEP = "[" * 100_000 + "]" * 100_000
RAW = {"@1e400": "1e400", "@deep": DEEP, "@nan": "NaN", "@inf": "-Infinity", "@huge": "1" + "0" * 400, "@digits": "9" * 5000}
NASTY: list[Any] = [
    *RAW, None, True, False, 0, 1, 2, 3, 7, -1, 0.5, -0.0, 1e308, 5e-324, 10**40, 2**31, 2**53, 2**63, 2**64, -(2**63),
    "", "inf", "nan", "1", "float31", "Adam", "adam", "one_cycle", "constant", "numpy", "\0", "\ud800", "a\nb", "a" * 100_000, "../..",
    "~nobody/x", [], [[]], {}, {"a": 1}, [1, 2], [1_000_000, 1_000_000, 3], [0, 0, 0], [8, 8, 1], [["a"], ["b"], ["c"]], ["a", "b", "c"],
    ["", "", ""],
]  # fmt: skip


class Failure(AssertionError):
    """Something changed although reading failed."""


def attack(numbers: np.random.Generator, folder: Path) -> Iterator[str | None]:
    warnings.simplefilter("ignore")
    seed = int(numbers.integers(1 << 30))
    cases = {}
    for kind, prepare in KINDS.items():
        (folder / kind).mkdir()
        cases[kind] = prepare(folder / kind)
    for number in itertools.count():
        for kind, case in cases.items():
            name = f"{kind} {seed} {number}"
            try:
                with np.errstate(all="ignore"):
                    case(random.Random(name))
            except Exception as error:
                yield f"{name}: {type(error).__name__}: {str(error)[:200]}"
            else:
                yield None


# ---------------------------------------------------------------------------------------------------------- damage


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to three changes: cut off, flipped, overwritten, repeated, removed or inserted."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(min(len(out), rng.choice([16, 200, 1 << 30])) or 1)
        size = rng.choice([1, 2, 4, 8, 100])
        kind = rng.randrange(6)
        if kind == 0:
            del out[at:]
        elif kind == 1 and out:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            out[at : at + size] = rng.choice([b"\xff", b"\0", b"\x7f", rng.randbytes(1)]) * size
        elif kind == 3:
            out[at:at] = out[at : at + size]
        elif kind == 4:
            del out[at : at + size]
        else:
            out[at:at] = rng.randbytes(size)
    return bytes(out)


def damaged_json(value: Any, rng: random.Random) -> str:
    """JSON with one to three values or keys replaced, removed, swapped or added."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        places = list(_places(value))
        if not places:
            break
        holder, key = rng.choice(places)
        kind = rng.randrange(8)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[rng.choice(["extra", "seed", "", "a" * 1000])] = copy.deepcopy(rng.choice(NASTY))
        elif kind == 2:
            other, name = rng.choice(places)
            holder[key], other[name] = copy.deepcopy(other[name]), copy.deepcopy(holder[key])
        elif kind == 3 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(rng.choice(NASTY)))
        else:
            holder[key] = copy.deepcopy(rng.choice(NASTY))
    text = json.dumps(value)
    for name, raw in RAW.items():
        text = text.replace(json.dumps(name), raw)
    return text


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()):
        yield value, key
        yield from _places(inner)


# ------------------------------------------------------------------------------------------- checkpoints, run folders


class _Stop(nb.callbacks.Callback):
    def on_batch_end(self, trainer: Any) -> None:
        trainer.stop("saved here")


def _trainer() -> nb.Trainer:
    model = nb.Sequential([nb.Dense(4), nb.BatchNorm(), nb.ReLU(), nb.Dropout(0.5), nb.Dense(3)])
    model.build((5,), backend="numpy")
    return nb.Trainer(model, optimizer=nb.Adam(1e-3), schedule="one_cycle")


def _state(trainer: nb.Trainer) -> Any:
    state = trainer.state()
    return {name: array.tobytes() for name, array in state.arrays.items()}, json.dumps(state.run)


def checkpoints(folder: Path) -> Case:
    """Restoring damaged checkpoints and loading weights from them; what is accepted can be trained."""
    rng = np.random.default_rng(0)
    data = rng.standard_normal((20, 5)).astype(np.float32), np.arange(20) % 3
    trainer, saved = _trainer(), _trainer()
    saved.fit(data, 2, 6)
    saved.fit(data, 3, 6, callbacks=[_Stop()])
    fresh = copy.deepcopy(trainer.state())
    path = folder / "run.safetensors"
    saved.save(path)
    whole = path.read_bytes()
    arrays, metadata = storage.read(path)
    length = struct.unpack("<Q", whole[:8])[0]
    header, body = json.loads(whole[8 : 8 + length]), whole[8 + length :]

    def case(rng: random.Random) -> None:
        kind = rng.randrange(4)
        if kind == 0:
            path.write_bytes(damaged(whole, rng))
        elif kind == 1:
            text = damaged_json(header, rng).encode()
            path.write_bytes(struct.pack("<Q", len(text)) + text + body)
        else:
            storage.write(path, arrays, metadata | {"run": damaged_json(json.loads(metadata["run"]), rng)})
        before = _state(trainer)
        try:
            trainer.restore(path)
        except NbnetError:
            if _state(trainer) != before:
                raise Failure("restore failed and changed the trainer") from None
            with contextlib.suppress(NbnetError):
                trainer.model.load_weights(path)
            return
        with contextlib.suppress(NbnetError):  # other data than before, or numbers that are not finite any more
            trainer.fit(data, trainer.epoch + 1, 6, callbacks=[_Stop()])
        trainer.load_state(fresh)

    return case


def run_folders(folder: Path) -> Case:
    """nbnet predict with damaged run folders."""
    values = {
        "nbnet": nb.__version__, "data": "digits", "data_dir": None, "size": None, "checksum": 1, "image_shape": (8, 8, 1),
        "class_names": list("abc"), "model": "digits", "epochs": 3, "batch_size": 64, "lr": 0.1, "optimizer": "adam", "weight_decay": 0.0,
        "schedule": "one_cycle", "backend": "numpy", "dtype": "float32", "seed": 0, "slices": None, "wire": None, "recipe": None,
        "augment": ["crop"], "label_smoothing": 0.1,
    }  # fmt: skip
    config = runs.Config(**values)
    run, image = folder / "run", folder / "image.png"
    run.mkdir()
    _picture().save(image)
    trainer = nb.Trainer(config.build(), optimizer=nb.Adam(0.1))
    trainer.save(run / runs.MODEL)
    model = (run / runs.MODEL).read_bytes()
    text = json.dumps(dataclasses.asdict(config))

    def case(rng: random.Random) -> None:
        kind = rng.randrange(3)
        (run / runs.MODEL).write_bytes(damaged(model, rng) if kind == 0 else model)
        written = [lambda: text.encode(), lambda: damaged(text.encode(), rng), lambda: damaged_json(json.loads(text), rng).encode()]
        (run / runs.CONFIG).write_bytes(written[kind]())
        before = {path.name: path.read_bytes() for path in run.iterdir()}
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            code = cli.main(["predict", str(run), str(image)])
        if {path.name: path.read_bytes() for path in run.iterdir()} != before:
            raise Failure("the run folder changed")
        if code not in (0, 2) or said.getvalue().count("\n") != (code == 2):
            raise Failure(f"exit code {code}: {said.getvalue()!r}")

    return case


# ------------------------------------------------------------------------------------------------------- data sets


def _read(read: Callable[[], Any]) -> None:
    try:
        read()
    except NbnetError as error:
        if "\n" in str(error):
            raise Failure(f"more than one line: {error!r}") from error


def idx(folder: Path) -> Case:
    """Damaged IDX files, plain and gzipped, damaged before or after packing."""
    x, y = np.arange(6 * 5 * 4, dtype=np.uint8).reshape(6, 5, 4), np.arange(6, dtype=np.uint8)
    whole = {}
    for split in ("train", "t10k"):
        for name, array in ((f"{split}-images-idx3-ubyte", x), (f"{split}-labels-idx1-ubyte", y)):
            whole[name] = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()

    def case(rng: random.Random) -> None:
        for path in folder.iterdir():
            path.unlink()
        victim = rng.choice(list(whole))
        for name, data in whole.items():
            if name != victim:
                (folder / name).write_bytes(data)
        _write_packed(folder / victim, whole[victim], rng)
        _read(lambda: load("mnist", folder))

    return case


def _write_packed(path: Path, data: bytes, rng: random.Random) -> None:
    """Write damaged data: plain, or damaged and then gzipped, or gzipped and then damaged."""
    kind = rng.randrange(3)
    if kind == 0:
        path.write_bytes(damaged(data, rng))
    else:
        packed = gzip.compress(damaged(data, rng), 1) if kind == 1 else damaged(gzip.compress(data, 1), rng)
        path.with_name(path.name + ".gz").write_bytes(packed)


def cifar_files(folder: Path) -> Case:
    """Damaged CIFAR-10 files: plain, gzipped, and in a damaged archive."""
    data = np.random.default_rng(0).integers(0, 10, 2 * (1 + cifar.PIXELS), np.uint8).tobytes()
    whole = dict.fromkeys(cifar.CIFAR10.files, data) | {cifar.CIFAR10.meta: "\n".join(cifar.CIFAR10.class_names).encode()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in whole.items():
            member = tarfile.TarInfo(f"{cifar.CIFAR10.subfolder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    archive = buffer.getvalue()

    def case(rng: random.Random) -> None:
        for path in folder.iterdir():
            path.unlink()
        if rng.randrange(2):
            packed = gzip.compress(damaged(archive, rng), 1) if rng.randrange(2) else damaged(gzip.compress(archive, 1), rng)
            (folder / cifar.CIFAR10.archive).write_bytes(packed)
        else:
            victim = rng.choice(list(whole))
            for name, content in whole.items():
                if name != victim:
                    (folder / name).write_bytes(content)
            _write_packed(folder / victim, whole[victim], rng)
        _read(lambda: load("cifar10", folder))

    return case


def _picture(mode: str = "RGB") -> Any:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def images(folder: Path) -> Case:
    """Damaged image files of the formats that nbnet reads, and files of other formats with the suffix of one."""
    others = ("ICO", "TGA", "SGI", "DDS", "PCX", "JPEG2000", "AVIF", "BLP", "EPS", "PDF")
    whole = []
    for name in (*FORMATS, *others):
        for mode in ("RGB", "L", "P", "1", "RGBA", "CMYK", "LA"):
            buffer = io.BytesIO()
            with contextlib.suppress(KeyError, OSError, ValueError):  # no such format, or no such mode in it
                _picture(mode).save(buffer, name)
                whole.append(buffer.getvalue())
    path = folder / "image.png"

    def case(rng: random.Random) -> None:
        data = rng.choice(whole)
        path.write_bytes(data if rng.randrange(20) == 0 else damaged(data, rng))
        _read(lambda: read_images([path], rng.choice([None, (4, 4)]), rng.choice([None, 1, 3])))

    return case


KINDS = {"checkpoint": checkpoints, "run folder": run_folders, "idx": idx, "cifar": cifar_files, "image": images}
