"""tools/siege.py, in short: the attacks find nothing, and what they find is reported."""

import importlib.util
import itertools
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

import nbnet as nb

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.fixture
def siege(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    spec = importlib.util.spec_from_file_location("siege", TOOLS / "siege.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setenv("NUMBA_NUM_THREADS", str(numba.config.NUMBA_NUM_THREADS))  # siege's 16 would come too late, when Numba compiles next
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")  # of decoders, about damaged images
def test_damaged_files(siege, tmp_path):
    from attacks import files

    found = list(itertools.islice(files.attack(np.random.default_rng(1), tmp_path), 400))
    assert found == [None] * 400


def test_damaged_onnx_files(siege, monkeypatch, tmp_path):
    pytest.importorskip("onnx")
    from attacks import onnx as attack

    def cases(count):
        return list(itertools.islice(attack.attack(np.random.default_rng(1), tmp_path), count))

    assert cases(300) == [None] * 300
    read = nb.onnx.load

    def two_lines(path, **options):
        try:
            return read(path, **options)
        except nb.NbnetError as error:
            raise nb.NbnetError(f"{error}\n") from error

    monkeypatch.setattr(nb.onnx, "load", two_lines)
    assert any("no short line" in (found or "") for found in cases(20))


def test_a_case_is_a_function_of_the_seed(siege):
    from attacks import bits

    first, again = (bits.result(bits.training, 3, "float32", "serial") for _ in range(2))
    assert first == again
    assert bits.result(bits.training, 4, "float32", "serial") != first


def test_random_networks(siege, monkeypatch, tmp_path):
    from attacks import networks

    build = networks.built

    def on_numpy(code, shape, backend="numpy", dtype="float64", fuse=True):  # where nothing is compiled
        return build(code, shape, "numpy", dtype, fuse)

    def cases():
        return itertools.islice(networks.attack(np.random.default_rng(2), tmp_path), 12)

    monkeypatch.setattr(networks, "built", on_numpy)
    assert list(cases()) == [None] * 12
    monkeypatch.setattr(nb.Concat, "_gradient", lambda self, dy, widths, i: np.ones((*dy.shape[:-1], widths[i]), dy.dtype))
    assert any("GradientError" in (found or "") for found in cases())


def test_failures_are_reported(siege, monkeypatch, capsys):
    from attacks import files

    monkeypatch.setattr(files, "attack", lambda rng, folder: iter([None, "checkpoint 1: it broke", None]))
    assert siege.run("files", 0, 60) == 1
    assert capsys.readouterr().out.endswith("files: 3 cases in 0.0 minutes, 1 failures\n  checkpoint 1: it broke\n")
    monkeypatch.setattr(files, "attack", lambda rng, folder: iter([None]))
    assert siege.run("files", 0, 60) == 0


def test_unknown_attack(siege, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["siege.py", "byts"])
    with pytest.raises(SystemExit):
        siege.main()
    assert "invalid choice: 'byts'" in capsys.readouterr().err


def test_ranks_that_fail(siege, monkeypatch, tmp_path):
    pytest.importorskip("mpi4py")
    from attacks import ranks

    found = ranks.attack(np.random.default_rng(0), tmp_path)
    assert [next(found), next(found)] == [None, None]  # one is killed, and goes on on other ranks
    monkeypatch.setattr(ranks, "PATIENCE", 0.0)
    assert "not all ranks have ended after 0 seconds" in next(found)
