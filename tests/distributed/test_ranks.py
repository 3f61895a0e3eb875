"""The same bits on any number of ranks, and in one process."""

import json

import numpy as np
import pytest

from nbnet.distributed import blocks

from . import cases, fifty, running

NAMES = ["batches", "fit", "resumed", "norms", "layers", "options", "reads", "files"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def expected(folder):
    """What one process finds, as JSON gives it."""
    stopped = cases.stopped(None, folder)
    assert stopped[1] == 1  # batches of the second epoch
    return json.loads(json.dumps({name: cases.CASES[name](None, folder) for name in NAMES}))


@pytest.mark.parametrize(("ranks", "threads"), [(2, 1), (4, 2)])
def test_the_same_bits_on_any_number_of_ranks(folder, expected, ranks, threads):
    running.needs_mpi()
    code, out, err = running.run(ranks, running.HERE / "cases.py", folder, *NAMES, threads=threads)
    found = {}
    for line in out.splitlines():
        found |= json.loads(line)
    assert (code, err) == (0, "")
    assert found.keys() == expected.keys()
    for name in NAMES:
        assert found[name] == expected[name], name


def test_slices_alone_have_the_bits_of_slices_together(folder, expected, monkeypatch):
    monkeypatch.setattr(blocks, "COMPILED", ())
    for name in ("norms", "layers", "options"):
        assert json.loads(json.dumps(cases.CASES[name](None, folder))) == expected[name], name


def test_gradients_rounded_on_the_wire(folder):
    running.needs_mpi()
    code, out, err = running.run(2, running.HERE / "cases.py", folder, "wires")
    assert (code, err) == (0, "")
    found = json.loads(out)["wires"]
    assert found["float16"] != found["bfloat16"]


def test_fifty_steps_on_eight_ranks(folder):
    running.needs_mpi()
    code, out, err = running.run(8, running.HERE / "fifty.py")
    assert (code, err) == (0, "")

    assert out.split() == [fifty.digest(None)]


def test_a_run_resumes_bit_for_bit(expected):
    t = cases.trainer(None)
    t.fit(cases.data()[0], 2, 48, progress=False)
    assert expected["resumed"] == cases.digest(t)


def test_every_dialect_is_another_computation(expected):
    norms = dict(expected["norms"])
    assert norms.pop("apart_deferred") == norms["apart"]
    assert len(set(norms.values())) == len(norms)


def test_a_run_in_slices_resumes_where_it_fits_alone(folder, tmp_path):
    t = cases.trainer(None)
    t.save(tmp_path / "run.safetensors")
    other = cases.trainer(None, slices=None)
    with pytest.warns(UserWarning, match="slices is 8 as in the file, not None"):
        other.restore(tmp_path / "run.safetensors")
    assert other.slices == 8
    assert np.array_equal(other.model.params["0.conv2d.weight"].value, t.model.params["0.conv2d.weight"].value)
