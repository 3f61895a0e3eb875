"""The ```py blocks of docs/convert.md, which need PyTorch or Keras. Those that need neither are ```python: tests/test_docs.py runs them."""

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "convert.md").read_text(encoding="utf-8")
BLOCKS = {
    re.search(r"^import (\w+)", code, re.MULTILINE)[1]: code for code in re.findall(r"^```py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
}


@pytest.mark.filterwarnings("ignore")  # those of Keras
@pytest.mark.parametrize("package", ["torch", "keras"])
def test_blocks_run_and_print_what_is_shown(package):
    pytest.importorskip(package)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(BLOCKS[package], "docs/convert.md", "exec"), {})
    assert printed.getvalue().splitlines() == re.findall(r"# -> (.*)$", BLOCKS[package], re.MULTILINE)
