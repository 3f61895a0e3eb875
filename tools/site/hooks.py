"""For MkDocs: the pages that lie outside of docs/, links that lead out of it, and formulas as MathML, which needs no script.

docs/ reads well on GitHub, too: so its pages link to files of the repository. On the site these links lead to the page, the picture, or
the file on GitHub.
"""

import posixpath
import re
from html import unescape
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
}
OPTIONAL = {"distributed.md"}  # pages that may be absent
LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?(\))")
LONG = 40  # characters of a formula in a line that may be too wide for a phone
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def on_config(config):
    config.nav = _present(config.nav)
    return config


def _present(nav):
    kept = []
    for entry in nav:
        for title, target in entry.items() if isinstance(entry, dict) else [(None, entry)]:
            if isinstance(target, list):
                kept.append({title: _present(target)})
            elif target not in OPTIONAL or (ROOT / "docs" / target).exists():
                kept.append(entry)
    return kept


def on_files(files, config):
    pictures = [path.relative_to(ROOT).as_posix() for path in (ROOT / "benchmarks" / "results").rglob("*.png")]
    for source, uri in [*PAGES.items(), *((name, name) for name in pictures)]:
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links relative to the repository become links within the site, or to GitHub."""
    here = next((source for source, uri in PAGES.items() if uri == page.file.src_uri), f"docs/{page.file.src_uri}")

    def link(found):
        if re.match(r"[a-z]+:|#|<", found[2]):
            return found[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), found[2]))
        uri = PAGES.get(target, target.removeprefix("docs/"))
        if files.get_file_from_path(uri) is not None and (uri != target or target in PAGES or target.endswith(".png")):
            where = posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")
        elif (ROOT / target).exists():
            where = f"{config.extra['repository']}/{'tree' if (ROOT / target).is_dir() else 'blob'}/main/{target}"
        else:
            return found[0]  # a dead link: mkdocs says so
        return f"{found[1]}{where}{found[3] or ''}{found[4]}"

    def outside(text):
        pieces = re.split(r"(`[^`\n]*`)", text)
        return "".join(piece if i % 2 else LINK.sub(link, piece) for i, piece in enumerate(pieces))

    out, end = [], 0
    for fence in FENCE.finditer(markdown):
        out += [outside(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*out, outside(markdown[end:])])


def on_page_content(html, page, config, files):
    """Formulas, as arithmatex has put them in the page, become MathML."""

    def inline(found):
        source = unescape(found[1]).strip()
        return convert(source) if len(source) < LONG else f'<span class="long-formula">{convert(source)}</span>'

    def alone(found):
        return f'<div class="formula">{convert(unescape(found[1]).strip(), display="block")}</div>'

    html = re.sub(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', alone, html, flags=re.DOTALL)
    return re.sub(r'<span class="arithmatex">\\\((.*?)\\\)</span>', inline, html, flags=re.DOTALL)
