"""nbnet as a process, --help, info and warmup."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from cuda_machine import GPU

from nbnet import cli

from .running import nbnet, process


def test_a_real_process(here):
    commands = [process("--help"), process(), process("info"), process("trian")]
    help_, none, info, wrong = [subprocess.run(**command, capture_output=True, text=True, check=False) for command in commands]
    assert (help_.returncode, none.returncode, info.returncode, wrong.returncode) == (0, 0, 0, 2)
    assert help_.stdout == none.stdout
    assert all(name in help_.stdout for name in cli.COMMANDS)
    facts = dict(line.split(":", 1) for line in info.stdout.splitlines())
    assert list(facts) == [
        *("nbnet", "python", "numpy", "numba", "llvmlite", "cpu", "vector features", "threads", "spinning"),
        *("fusion", "replay", "compile workers", "memory pool", "read-ahead", "kernel cache", "data cache", "gpu"),
    ]
    assert facts["numpy"].strip() == np.__version__
    assert facts["kernel cache"].strip().startswith(os.environ["NUMBA_CACHE_DIR"])
    assert ("compute capability" if GPU else "none: backend 'cuda'") in facts["gpu"]
    assert (
        wrong.stderr
        == "nbnet: error: unknown command 'trian': did you mean 'train'? choose one of train, predict, export, bench, demo, info, warmup\n"
    )
    assert [done.stderr for done in (help_, none, info)] == ["", "", ""]


def test_a_reader_that_goes_away(here):
    with subprocess.Popen(**process("info"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
        started.stdout.close()
        assert started.stderr.read() == b""
        assert started.wait() == 1


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        nbnet(command, "--help")
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert "examples:\n  nbnet " + command in out or f"nbnet {command}" in out.split("examples:")[1]


def test_version(capsys):
    with pytest.raises(SystemExit):
        nbnet("--version")
    assert capsys.readouterr().out == f"nbnet {cli.__version__}\n"


def test_warmup(capsys):
    assert nbnet("warmup", "--backend", "serial") == 0
    out = capsys.readouterr().out
    assert re.search(r"(\d+ kernels compiled|every kernel was already in the cache) \(serial; float32\), \d+\.\d s\n$", out)
    assert nbnet("warmup", "--backend", "serial") == 0
    assert capsys.readouterr().out.startswith("every kernel was already in the cache (serial; float32)")


WARM = """
import sys
from nbnet import cli

def nbnet(*arguments):
    assert cli.main([*map(str, arguments)]) == 0

nbnet("warmup", "--backend", "serial")
before = cli.train.kernels.compiled()
for model, optimizer in (("five-conv", "adamw"), ("resnet9", "sgd"), ("lenet", "rmsprop"), ("digits", "adam")):
    options = ["--model", model, "--optimizer", optimizer, "--backend", "serial", "--epochs", 1]
    nbnet("train", "--data", sys.argv[1], "--size", 8, *options)
print(before, cli.train.kernels.compiled())
"""


def test_warmup_leaves_nothing_to_compile(pictures, here, tmp_path):
    """Every model and optimiser trains afterwards without compiling. In an empty cache: other tests fill theirs."""
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", WARM, pictures], env=env, capture_output=True, text=True, check=True)
    before, after = done.stdout.split()[-2:]
    assert int(before) > 0
    assert before == after
