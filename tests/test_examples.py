"""Every example runs from a fresh process, is short, and says what it promises: a regular expression of its output."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
PROMISES = {
    "train_digits.py": "test accuracy 9",
    "own_layer.py": "fit of a sine",
    "kernels_alone.py": "parallel:",
    "compare_kernels.py": "times as long as serial",
    "own_images.py": "test image 2: a ",
    "deep_tanh.py": "the picture: deep_tanh.png",
    "convergence.py": "the picture: convergence.png",
    "cifar10_airbench.py": "test accuracy 9",
    "cifar_cnn.py": "batch norm and dropout: test accuracy",
    "dropout_overfit.py": "in evaluation",
    "feature_scaling.py": "times that",
    "moving_average.py": "without moving statistics",
    "gan_digits.py": r"step 1000: .* right on [4-7]\d%, .* sure of [3-9]\d% of the generated digits, of (9|10) kinds",
    "siamese_triplet.py": r"pixels: accuracy 6[\s\S]*step 400: .* features: accuracy 9[3-9]",
    "q_network.py": "the fewest steps to the goal from 23 of 23 cells",
    "inside_numba.py": r"100,000 predictions in .* a digit survives [1-9]\d* wrong pixels",
    "sklearn_digits.py": r"MLPClassifier +test accuracy 9[67][\s\S]*table +test accuracy 9[67][\s\S]*images +test accuracy 99",
    "saliency.py": r"gradient of a digit's pixels is ([2-9]|\d\d)\.\d times[\s\S]*larger on the digit in (9\d|100)",
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example(path, tmp_path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 80
    environment = os.environ | {"PYTHONPATH": str(path.parents[1]), "PYTHONWARNINGS": "error", "COLUMNS": "100"}
    run = subprocess.run([sys.executable, str(path)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    assert re.search(PROMISES[path.name], run.stdout), run.stdout


def test_every_example_has_a_promise():
    assert {path.name for path in EXAMPLES} == set(PROMISES)
