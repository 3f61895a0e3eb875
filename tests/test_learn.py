"""The chapters for learners: the form of each, links to lines of code, and the frames of the page with sliders."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
LEARN = ROOT / "docs" / "learn"
CHAPTERS = sorted(LEARN.glob("*/*.md"))
LINK = re.compile(r"\[`([^`\n]+)`\]\(([^)#\s]+\.py)#L(\d+)\)")
each = pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: f"{page.parent.name}-{page.stem}")


@pytest.fixture(scope="module")
def learn():
    spec = importlib.util.spec_from_file_location("learn", ROOT / "tools" / "site" / "learn.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@each
def test_a_chapter_has_all_its_parts(page):
    text = page.read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^## (.*)$", prose, re.MULTILINE)[:2] == ["Derivation", "See it"]
    assert prose.split("\n\n")[1].startswith("**The trap.** ")
    derivation, exercise = (text.split(f"## {title}\n")[1].split("\n## ")[0] for title in ("Derivation", "Exercise"))
    assert "$" in derivation or "```math" in derivation
    assert re.fullmatch(r'\n.+\n\n<details markdown="1"><summary>Answer</summary>\n.+\n</details>\n', exercise, re.DOTALL)
    assert exercise.count("<details markdown") == exercise.count("</details>") == 1
    assert "# -> " in text
    assert 250 <= len(prose.split()) <= 600


@each
def test_links_to_code_lead_to_the_line_that_they_name(page, request):
    """With --update, the numbers of lines that have moved are corrected."""
    if request.config.getoption("--update"):
        page.write_text(LINK.sub(lambda link: _moved(page, *link.groups()), page.read_text(encoding="utf-8")), encoding="utf-8")
    found = LINK.findall(page.read_text(encoding="utf-8"))
    assert any(target.endswith("reference.py") for _, target, _ in found)
    for code, target, number in found:
        lines = (page.parent / target).resolve().read_text(encoding="utf-8").splitlines()
        at = [i for i, line in enumerate(lines, start=1) if line.strip() == code]
        assert int(number) in at, f"{page.name}: {code!r} is in line {at} of {target}, not {number}"


def _moved(page, code, target, number):
    """The link with the number of the nearest line that has this code."""
    lines = (page.parent / target).resolve().read_text(encoding="utf-8").splitlines()
    at = [i for i, line in enumerate(lines, start=1) if line.strip() == code] or [int(number)]
    return f"[`{code}`]({target}#L{min(at, key=lambda i: abs(i - int(number)))})"


def test_the_lists_of_chapters_are_complete():
    for kind in ("batchnorm", "dropout"):
        text = (ROOT / "docs" / f"{kind}.md").read_text(encoding="utf-8")
        listed = re.findall(rf"^\| \[(.*)\]\((learn/{kind}/[\w-]+\.md)\)", text, re.MULTILINE)
        assert sorted(target for _, target in listed) == [f"learn/{kind}/{page.name}" for page in CHAPTERS if page.parent.name == kind]
        for title, target in listed:
            assert (ROOT / "docs" / target).read_text(encoding="utf-8").startswith(f"# {title}\n")


@each
def test_figures_of_demonstrations_are_those_of_their_pages(page):
    known = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "demos").glob("*.md")).split()
    words = page.read_text(encoding="utf-8").split()
    for i in range(len(words) - 2):
        if re.match(r"\(\d[\d.]*$", words[i]) and words[i + 1] == "to":
            figure = [words[i - 1], words[i], "to", re.sub(r"\).*", ")", words[i + 2])]
            found = [known[j : j + 3] + [re.sub(r"\).*", ")", known[j + 3])] for j in range(len(known) - 3)]
            assert figure in found, " ".join(figure)


# ----------------------------------------------------------------------------------------------- the page with sliders


@pytest.fixture(scope="module")
def stored():
    path = LEARN / "moving-statistics.json"
    assert path.stat().st_size < 200_000
    return json.loads(path.read_text(encoding="utf-8"))


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1)  # thousandths: another processor may round the other way


def test_the_frames_are_what_the_command_makes(learn, stored):
    for name in ("BATCHES", "DECAYS", "EPSILONS"):
        key = {"BATCHES": "batch", "DECAYS": "decay", "EPSILONS": "eps"}[name]
        assert tuple(stored[key]) == getattr(learn, name)
    for b, d in ((0, 1), (2, 3), (6, 7)):
        dots, lines = learn.frame_of_batches(stored["batch"][b]), learn.frame_of_averages(stored["batch"][b], stored["decay"][d])
        for key in ("mean", "variance", "spread"):
            close(stored["batches"][b][key], dots[key])
            close(stored["averages"][b][d][key], lines[key])


def test_the_frames_obey_the_formulas(stored):
    """All of them, by hand: d M + (1 - d) b, and the deviation sqrt(v / (V + eps))."""
    unit, every = stored["unit"], stored["every"]
    true = np.repeat([variance for _, variance in stored["populations"]], stored["steps"] // 2)
    for dots, rows in zip(stored["batches"], stored["averages"], strict=True):
        for d, lines in zip(stored["decay"], rows, strict=True):
            for key, value in (("mean", 0.0), ("variance", 1.0)):
                for b, moving in zip(dots[key], lines[key], strict=True):
                    value = d * value + (1 - d) * b / unit
                    assert abs(value - moving / unit) < 0.002
            V = np.array(lines["variance"]) / unit
            for eps, spread in zip(stored["eps"], lines["spread"], strict=True):
                look = slice(every - 1, None, every)
                known = V[look] > 0.05  # below, thousandths are too coarse
                np.testing.assert_allclose(np.array(spread)[known] / unit, np.sqrt(true[look] / (V[look] + eps))[known], rtol=0.02)


def test_the_pictures_are_drawn_here(learn, tmp_path):
    assert sorted(path.stem for path in (ROOT / "docs" / "images").glob("learn-*.png")) == sorted(learn.PICTURES)
    learn.draw_gradient(tmp_path / "gradient.png")
    assert (tmp_path / "gradient.png").read_bytes().startswith(b"\x89PNG")
