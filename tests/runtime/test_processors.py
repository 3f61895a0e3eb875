"""The processor count: affinity, and a container's quota."""

import os

import pytest

from nbnet.runtime import processors as module
from nbnet.runtime.processors import processors


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 8), ("200000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8), ("nonsense", 8)]
)
def test_a_container_has_the_processors_of_its_quota(quota, expected, tmp_path, monkeypatch):
    (tmp_path / "cpu.max").write_text(quota + "\n", encoding="utf-8")
    monkeypatch.setattr(module, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(8), raising=False)
    assert processors() == expected


def test_without_affinity_or_quota(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "QUOTA", tmp_path / "missing")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert processors() == 4
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert processors() == 1
