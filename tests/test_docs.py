"""The pages run as they stand: every ```python block of README.md and of docs/, in order, one namespace a page.

What a block prints must be what the page shows: the comments `# -> value` of the block (beside or below the call, one for
each line), or the ```text block that directly follows it. A block that shows neither may print what it likes.
"""

import contextlib
import io
import re
import shlex
import tokenize
from pathlib import Path

import numpy as np
import pytest
from cuda_machine import GPU
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if path.exists()]
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```$(?:\n\s*^```text\n(?P<text>.*?)^```$)?", re.MULTILINE | re.DOTALL)
ARROW = "# -> "


def arrows(code):
    """The values of the comments `# -> value`, in order."""
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return [token.string.removeprefix(ARROW) for token in tokens if token.type == tokenize.COMMENT and token.string.startswith(ARROW)]


def name(path):
    return path.relative_to(ROOT).as_posix()


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


@pytest.mark.filterwarnings("ignore")  # those of other frameworks
@pytest.mark.parametrize(
    ("page", "package"),
    [("from-pytorch", "torch"), ("from-keras", "keras"), ("onnx", "onnxscript"), ("gpu", "cuda"), ("distributed", "mpi4py")],
)
def test_blocks_of_other_frameworks_run_too(page, package, tmp_path, monkeypatch):
    """```py: what needs more than the tests install. tests/convert/test_page.py has those of docs/convert.md."""
    if package == "cuda":
        if not GPU:
            pytest.skip("no GPU")
    else:
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    source, namespace, count = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8"), {"__name__": "__main__"}, 0
    for kind, code in re.findall(r"^```(py|python)\n(.*?)^```$", source, re.MULTILINE | re.DOTALL):
        count += kind == "py"
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"{page}.md", "exec"), namespace)
        if kind == "py" and arrows(code):
            assert printed.getvalue().splitlines()[-len(arrows(code)) :] == arrows(code)
    assert count


def test_no_block_is_left_out():
    """Python is ```python or, on the pages above, ```py."""
    pages = {path.stem for path in PAGES if "```py\n" in path.read_text(encoding="utf-8")}
    assert pages == {"from-pytorch", "from-keras", "onnx", "gpu", "convert", "distributed"}
    for path in PAGES:
        kinds = set(re.findall(r"^```(\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE))
        assert kinds <= {"python", "py", "sh", "bash", "text", "math"}, path.name


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


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"], ids=name)
def test_links_lead_somewhere(page):
    """Files and their headings; MkDocs looks at the site's."""
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target, _, heading in (link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", text)):
        if target.startswith("http"):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        if heading and path.suffix == ".md":  # tests/test_learn.py has lines of code
            titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, f"{target}#{heading}"


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in PAGES if path.name != "README.md"}
    assert pages <= listed, "add the page to nav in mkdocs.yml"
    assert listed - pages <= {"index.md", "changelog.md", "contributing.md", "benchmarks.md", "distributed.md"}


def test_every_picture_is_produced_here():
    """By a command: nbnet train and demo and tools/site/learn.py write those of docs/images; nbnet bench, growth.py and distributed.py
    the others."""
    demos = "learn|cifar-cnn|convergence|deep-tanh|dropout-overfit|feature-scaling|moving-average"
    for page in PAGES:
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            path = (page.parent / target).resolve().relative_to(ROOT).as_posix()
            results = r"benchmarks/results/(cpu|avx2|growth|distributed)/\w+\.png$"
            assert re.match(rf"docs/images/(curves|({demos})-[\w-]+)\.png$|{results}", path), path


def test_the_commands_of_the_quick_start_run(tmp_path, monkeypatch, capsys):
    from nbnet import cli

    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    commands = [line for block in re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL) for line in block.splitlines()]
    commands = [line.split()[1:] for line in commands if line.startswith("nbnet ")]
    assert [command[0] for command in commands] == ["info", "train", "train"]
    monkeypatch.chdir(tmp_path)
    for i in range(24):  # the photos of the last one
        folder = tmp_path / "photos" / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 128, (8, 8, 3)) + 100 * (i % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    for command in commands:
        cli.main([*command, *(["--epochs", "1", "--model", "digits"] if "photos" in command else [])])
    assert (tmp_path / "first" / "report.html").exists()
    assert "test accuracy" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_have_these_options(page):
    from nbnet import cli

    blocks = re.findall(r"^```(?:sh|bash)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for line in "".join(blocks).splitlines():
        line = line.partition("#")[0].partition("&&")[0]
        if words := re.match(r"(?:\.venv/bin/)?nbnet (.*)", line):
            command, *options = shlex.split(words[1])
            cli.parsers()[1][command].parse_args(options)
        elif script := re.search(r"python (\w+/[\w/]+\.py)", line):
            assert (ROOT / script[1]).exists(), line
