"""The pages run as they stand: every ```python block of README.md and docs/*.md, in order, one namespace a page.

What a block prints must be what the page shows: the comments `# -> value` of the block (beside or below the call, one for
each line), or the ```text block that directly follows it. A block that shows neither may print what it likes.
"""

import contextlib
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if path.exists()]
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```$(?:\n\s*^```text\n(?P<text>.*?)^```$)?", re.MULTILINE | re.DOTALL)
ARROW = "# -> "


def arrows(code):
    """The values of the comments `# -> value`, in order."""
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return [token.string.removeprefix(ARROW) for token in tokens if token.type == tokenize.COMMENT and token.string.startswith(ARROW)]


def name(path):
    return path.name


@pytest.mark.parametrize("page", [path for path in PAGES if "```python\n" in path.read_text(encoding="utf-8")], ids=name)
def test_blocks_run_and_print_what_is_shown(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source, namespace = page.read_text(encoding="utf-8"), {"__name__": "__main__"}
    for block in BLOCK.finditer(source):
        code, text = block["code"], block["text"]
        above = source[: block.start("code")].count("\n")  # so that a traceback names the line of the page
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * above + code, str(page), "exec"), namespace)
        shown = arrows(code)
        where = f"{page.name}, the block at line {above}"
        assert not (shown and text), f"{where} shows its output twice: keep the arrows or the text block"
        if shown or text:
            assert printed.getvalue().splitlines() == (shown or text.splitlines()), f"{where} prints something else"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_inline_maths_survives_markdown(page):
    """GitHub reads $...$ after Markdown has eaten its escapes (backslash and sign) and emphasis (stars, `}_`)."""
    prose = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for paragraph in re.split(r"\n\s*\n", prose):
        pieces = paragraph.split("$")
        assert len(pieces) % 2, f"{page.name}: an odd number of $ in {paragraph[:60]!r}"
        for maths, after in zip(pieces[1::2], pieces[2::2]):
            broken = re.search(r"\\[^a-zA-Z]|[*<\n]|\}_|^\s|\s$", maths) or re.match(r"\w", after)
            assert not broken, f"{page.name}: ${maths}$ may not render; use a ```math block, or other words"
