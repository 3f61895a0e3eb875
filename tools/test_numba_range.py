"""Test the kernels on the oldest and the newest Numba that pyproject.toml allows, each in a fresh virtual environment.

python tools/test_numba_range.py [pytest arguments]
"""

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ["tests/kernels/cpu", "tests/kernels/test_conv2d.py", "tests/kernels/test_batchnorm.py", "tests/kernels/test_dense.py"]


def passes(requirement, arguments):
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / ("Scripts" if sys.platform == "win32" else "bin") / "python")
        tools = [requirement, "pytest", "pytest-timeout", "pytest-xdist"]
        subprocess.run([python, "-m", "pip", "install", "-q", "-e", str(ROOT), *tools], check=True)
        subprocess.run([python, "-c", "import numba, numpy; print('Numba', numba.__version__, 'NumPy', numpy.__version__)"], check=True)
        return subprocess.run([python, "-m", "pytest", "-q", *(arguments or TESTS)], cwd=ROOT, check=False).returncode == 0


def main():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    oldest, limit = re.search(r'"numba>=([\d.]+),<([\d.]+)"', text).groups()
    results = {requirement: passes(requirement, sys.argv[1:]) for requirement in (f"numba=={oldest}.*", f"numba<{limit}")}
    for requirement, passed in results.items():
        print(requirement, "passed" if passed else "FAILED")
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
