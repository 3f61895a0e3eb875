"""The site as built: no dead link, every name of the reference, nothing from other servers, a search index. Needs nbnet[docs]."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import zlib
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest
from test_api_reference import NAMES

pytest.importorskip("mkdocs")
pytest.importorskip("mkdocstrings_handlers")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    return out


@pytest.fixture(scope="module")
def pages(site):
    found = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(found) > 40
    return found


def test_no_dead_link(site, pages):
    anchors = {path: set(re.findall(r' (?:id|name)="?([^"\s>]+)', text)) for path, text in pages.items()}
    checked = 0
    for path, text in pages.items():
        for link in re.findall(r'<(?:a|img|script|link)\b[^>]*? (?:href|src)="?([^"\s>]+)', text):
            target, _, anchor = unquote(unescape(link)).partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            to = (path.parent / target).resolve() if target else path
            to = to / "index.html" if to.is_dir() else to
            assert to.exists(), f"{path.relative_to(site)}: {link}"
            assert not anchor or anchor.startswith("__") or anchor in anchors[to], f"{path.relative_to(site)}: {link}"
            checked += 1
    assert checked > 1000


def test_every_name_of_the_reference_has_an_anchor(site, pages):
    inventory = (site / "objects.inv").read_bytes()
    listed = {line.split()[0] for line in zlib.decompress(inventory[inventory.index(b"zlib.\n") + 6 :]).decode().splitlines()}
    assert {f"nbnet.{name}" for name in NAMES} <= listed
    text = "".join(pages.values())
    assert [name for name in NAMES if f'id="nbnet.{name}"' not in text] == []


def test_nothing_comes_from_other_servers(pages):
    for path, text in pages.items():
        loaded = re.findall(r'<(?:script|img|link rel="?stylesheet"?)[^>]* (?:src|href)="?(https?:[^"\s>]+)', text)
        assert loaded == [], path


def test_formulas_and_sections(site, pages):
    chapters = [text for path, text in pages.items() if path.is_relative_to(site / "learn")]
    assert sum(text.count("<math") for text in chapters) > 150
    assert "arithmatex" not in "".join(chapters)
    reference = "".join(text for path, text in pages.items() if "api" in path.parts)
    assert not re.search(r"<p>[^<]*\b(?:Args|Returns|Raises):", reference)


def test_search(site):
    found = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"]
    assert any(doc["location"].startswith("api/layers/#nbnet.DepthwiseConv2D") for doc in found)
    assert any("learning rate is too high" in doc["text"] for doc in found)


def test_docstrings_become_markdown():
    spec = importlib.util.spec_from_file_location("docstrings", ROOT / "tools" / "site" / "docstrings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    source = """Scale: rows of x.

    y = a * x + b   (Somebody 2020)

    Args:
        a, b: numbers. c: (n,) or more, in [0, 1]; see nbnet.losses.get.
            A line.
        d: None: the default.
    Returns:
        y, with _these_ characters < 3.
    Buffers: one.
    """
    assert module.markdown(source).splitlines() == [
        "Scale: rows of x.",
        "",
        "`y = a * x + b` (Somebody 2020)",
        "",
        "**Arguments**",
        "",
        "- `a`, `b`: numbers.",
        '- `c`: (n,) or more, in \\[0, 1\\]; see <autoref identifier="nbnet.losses.get" optional>nbnet.losses.get</autoref>. A line.',
        "- `d`: None: the default.",
        "",
        "**Returns**",
        "",
        "y, with \\_these\\_ characters &lt; 3.",
        "",
        "**Buffers:** one.",
    ]
