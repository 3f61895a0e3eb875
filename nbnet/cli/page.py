"""Self-contained HTML pages, with embedded pictures; readable on phones, light and dark."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from nbnet.errors import DataError
from nbnet.storage import write_file

MIMES = {".png": "image/png", ".gif": "image/gif", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}
WIDE = 1.9  # width / height from which a picture is at least twice as wide as a phone; pictures scroll sideways there instead of shrinking

STYLE = """
:root { --back: #fbfaf8; --card: #fff; --ink: #1d2329; --soft: #5c6670; --line: #e3e0da; --accent: #0072b2; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14181c; --card: #1c2127; --ink: #e8eaec; --soft: #a3adb7; --line: #313942; --accent: #6db9ea; }
  img { filter: brightness(.92); }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; background: var(--back); color: var(--ink); font: 17px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main, header, footer { max-width: 62rem; margin: 0 auto; padding: 0 1.2rem; }
header { padding-top: 3rem; }
h1 { font-size: clamp(1.8rem, 5vw, 2.7rem); line-height: 1.15; margin: 0 0 .6rem; letter-spacing: -.02em; }
h2 { font-size: clamp(1.35rem, 4vw, 1.8rem); line-height: 1.25; margin: 0 0 .8rem; letter-spacing: -.01em; }
.lead, footer { color: var(--soft); max-width: 42rem; }
nav { display: flex; flex-wrap: wrap; gap: .5rem; margin: 1.4rem 0 2.4rem; }
nav a { padding: .4rem .8rem; border: 1px solid var(--line); border-radius: 2rem; background: var(--card); font-size: .92rem; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
a:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
section { padding: 2rem 0 1rem; border-top: 1px solid var(--line); scroll-margin-top: .5rem; }
ul { padding-left: 1.2rem; margin: 0 0 1.2rem; max-width: 46rem; }
li { margin: .4rem 0; }
figure { margin: 0 0 1.6rem; padding: .8rem; background: var(--card); border: 1px solid var(--line); border-radius: .7rem; }
.scroll { overflow-x: auto; border-radius: .4rem; background: #fff; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
@media (max-width: 44rem) { .scroll img { max-width: none; width: 33rem; } .wide img { width: 50rem; } }
figcaption { color: var(--soft); font-size: .92rem; padding: .6rem .2rem 0; }
code { font: .88em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere;
  background: var(--card); border: 1px solid var(--line); border-radius: .3rem; padding: .1em .35em; }
.how { font-size: .92rem; color: var(--soft); }
footer { padding-bottom: 3rem; font-size: .92rem; }
@media print { nav { display: none; } figure { break-inside: avoid; } }
"""


class Section(NamedTuple):
    """A part of a page."""

    anchor: str  # id of the section in links
    title: str
    sentences: Sequence[str]
    pictures: Sequence[tuple[Path, str]]  # files and their captions
    command: str = ""  # that reproduces it


def write(path: Path, title: str, lead: str, sections: Sequence[Section], footer: str) -> None:
    """Write a page.

    Args:
        path: the file. title, lead, footer: text, as are those of the sections. sections: in order.
    Raises:
        DataError: the page cannot be written, or a picture cannot be read.
    """
    links = "\n".join(f'<a href="#{section.anchor}">{escape(section.title)}</a>' for section in sections)
    text = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>nbnet: {escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p class="lead">{escape(lead)}</p>
<nav aria-label="Sections">
{links}
</nav>
</header>
<main>
{"".join(map(_section, sections))}</main>
<footer><p>{escape(footer)}</p></footer>
</body>
</html>
"""
    write_file(path, text.encode(errors="replace"))  # file names need not be valid UTF-8


def _section(section: Section) -> str:
    sentences = "\n".join(f"<li>{escape(sentence)}</li>" for sentence in section.sentences)
    figures = "\n".join(_figure(file, caption) for file, caption in section.pictures)
    command = f'<p class="how">Run it again: <code>{escape(section.command)}</code></p>\n' if section.command else ""
    return f"""<section id="{section.anchor}">
<h2>{escape(section.title)}</h2>
<ul>
{sentences}
</ul>
{figures}
{command}</section>
"""


def _figure(path: Path, caption: str) -> str:
    from PIL import Image

    try:
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        with Image.open(path) as image:
            width, height = image.size
    except OSError as error:
        raise DataError(f"cannot read the picture {path}: {error}") from error
    kind = "scroll wide" if width > WIDE * height else "scroll"
    source = f"data:{MIMES[path.suffix]};base64,{data}"
    size = f'width="{width}" height="{height}" loading="lazy"'
    return f"""<figure>
<div class="{kind}"><img src="{source}" alt="{escape(caption)}" {size}></div>
<figcaption>{escape(caption)}</figcaption>
</figure>"""
