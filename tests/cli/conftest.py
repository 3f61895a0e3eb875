"""An empty folder for each test, pictures in it, and a trained run."""

import pytest

from .running import TINY, nbnet, picture, save


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Commands run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pictures(here, rng):
    """A folder of small pictures: the bright half says the class."""
    for name in ("left", "right", "top"):
        (here / "pictures" / name).mkdir(parents=True)
        for i in range(15):
            save(here / "pictures" / name / f"{i}.png", picture(rng, name))
    return here / "pictures"


@pytest.fixture
def trained(pictures, here):
    assert nbnet("train", "--data", pictures, "--out", "run", *TINY, "--epochs", 12) == 0
    return here / "run"
