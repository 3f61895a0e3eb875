"""One copy of a data set on each node, in memory that its ranks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nbnet.datasets.images import Images
from nbnet.distributed.ranks import Ranks
from nbnet.runtime.lazy import Lazy


def shared(ranks: Ranks, comm: Any, load: Callable[[], Any]) -> Any:
    """What `load` returns: tuples, lists and other objects, in which the arrays of NumPy are in memory that the ranks of a node share.

    The first rank of each node calls it. Where it returns images of which some stay in their files, the others get the names of these, and
    each rank opens those of the rows that it needs. Where it returns another array that is not in memory, the other ranks call it too. All
    ranks call this together.
    """
    if ranks.size == 1:
        return load()
    from mpi4py import MPI

    ranks.any(False)  # all are here: what follows does not listen for failures
    node = comm.Split_type(MPI.COMM_TYPE_SHARED, key=ranks.rank)
    leads, lead = node.Get_rank() == 0, node.bcast(ranks.rank)
    found = load() if leads else None
    form = ranks.gather(_form(found) if leads else None)[lead]
    value = _placed(form, found, node, {})
    ranks.any(False)  # all arrays are written
    return load() if value is None else value


class _Array(NamedTuple):
    """What stands for an array."""

    shape: tuple[int, ...]
    dtype: str


class _Files(NamedTuple):
    """What stands for some rows of Images."""

    files: Any
    kept: _Array
    depth: int
    size: tuple[int, int] | None
    number: int  # the same for rows of the same images
    rows: np.ndarray | None


def _form(value: Any) -> Any:
    """The value with the shapes of arrays in their place; None if it holds something that is not in memory."""
    if isinstance(value, np.ndarray):
        return _Array(value.shape, value.dtype.str)
    if isinstance(value, Lazy) and type(value.source) is Images and value.source.of_paths:
        source = value.source
        return _Files(source.files, _form(source.kept), source.depth, source.size, id(source), value.rows)
    if isinstance(value, tuple):
        forms = [_form(part) for part in value]
        return None if any(form is None for form in forms) else tuple(forms)
    return value if isinstance(value, (list, str, int)) else None


def _placed(form: Any, value: Any, node: Any, images: dict[int, Images]) -> Any:
    """images: those that are placed already, by number."""
    if isinstance(form, _Array):
        return _window(form.shape, form.dtype, value, node)
    if isinstance(form, _Files):
        if form.number not in images:
            kept = _placed(form.kept, None if value is None else value.source.kept, node, images)
            images[form.number] = Images(form.files, kept, form.depth, form.size)
        return Lazy(images[form.number], rows=form.rows)
    if isinstance(form, tuple):
        return tuple([_placed(part, None if value is None else value[i], node, images) for i, part in enumerate(form)])
    return form


def _window(shape: tuple[int, ...], dtype: str, values: np.ndarray | None, node: Any) -> np.ndarray:
    from mpi4py import MPI

    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    window = MPI.Win.Allocate_shared(size if values is not None else 0, 1, comm=node)
    _windows.append(window)
    memory: Any = window.Shared_query(0)[0]
    array = np.frombuffer(memory, dtype, int(np.prod(shape))).reshape(shape)
    if values is not None:
        array[...] = values
    return array


_windows: list[Any] = []  # as long as this process lives: arrays may be views of them
