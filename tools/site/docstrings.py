"""For mkdocstrings: turns nbnet's docstrings, which are plain text with sections, into Markdown.

Sections have several names on a line, formulas stand alone on theirs, and indented blocks are code. Names of nbnet become links.
"""

import importlib
import inspect
import re

import griffe

HEADINGS = {"Args": "Arguments", "Params": "Parameters of the layer"}
SECTION = re.compile(r"[A-Z][\w ,.()=]*:$")
LABEL = re.compile(r"([A-Z][\w, -]{0,30}): (.*)")
FORMULA = re.compile(r"[a-z]\w*(?:\(.*?\))?(?:\[.*?\])? = [^;]*$")
REFERENCE = re.compile(r"\s{2,}(\([A-Z].*\)[.,]?)$")
NAMES = r"(?!None|True|False|or\b)[\w*]+(?: \([^)]*\))?(?:, [\w*]+(?: \([^)]*\))?)*"


class Docstrings(griffe.Extension):
    """Rewrites each docstring once, when its object has been read."""

    def on_object(self, *, obj, **options):
        if obj.docstring is not None and not obj.is_alias:
            obj.docstring.value = markdown(obj.docstring.value)

    def on_module_members(self, *, mod, **options):
        """Adds functions that are made when the module is imported: those of nbnet.functional.activations."""
        if mod.path == "nbnet.functional.activations":
            module = importlib.import_module(mod.path)
            made = [
                thing for name, thing in vars(module).items() if inspect.isfunction(thing) and name not in mod.members and name[0] != "_"
            ]
            made = [thing for thing in made if thing.__module__ == mod.path]
            source = "\n".join(f"def {each.__name__}{inspect.signature(each)}: {each.__doc__!r}" for each in made)
            for name, function in griffe.visit(mod.name, mod.filepath, source, parent=mod.parent).functions.items():
                function.docstring.value = markdown(function.docstring.value)
                mod.set_member(name, function)


def markdown(text):
    lines, out = inspect.cleandoc(text).splitlines(), []
    paragraph = []

    def flush():
        if paragraph:
            out.extend(_paragraph(paragraph, first=not out))
            paragraph.clear()

    at = 0
    while at < len(lines):
        line = lines[at]
        block = _indented(lines, at + 1)
        if not line.strip():
            flush()
        elif line.startswith("  ") and paragraph and paragraph[0].startswith("- "):
            paragraph.append(line.strip())
        elif line.startswith("    "):
            flush()
            block = _indented(lines, at)
            out += [*block, ""]
            at += len(block) - 1
        elif SECTION.match(line) and block:
            flush()
            title = line[:-1]
            out += [f"**{_heading(title)}**", "", *_entries(title, block), ""]
            at += len(block)
        elif (label := LABEL.match(line)) and label[1] in ("Args", "Attributes") and block:  # "Args: as of Adam, and"
            flush()
            out += [f"**{_heading(label[1])}:** {_escaped(label[2])}", "", *_entries(label[1], block), ""]
            at += len(block)
        else:
            if LABEL.match(line) or line.startswith("- "):  # such as "Buffers: ..." right below a section
                flush()
            paragraph.append(line.strip())
        at += 1
    flush()
    return "\n".join(out).rstrip()


def _indented(lines, at):
    """The lines from there that are indented, with the empty ones between them."""
    end = at
    while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
        end += 1
    while end > at and not lines[end - 1].strip():
        end -= 1
    return lines[at:end] if end > at and lines[at].startswith("    ") else []


def _paragraph(lines, first=False):
    text = " ".join(lines)
    if text.startswith("- "):
        return ["- " + _escaped(text[2:])]
    found = REFERENCE.search(text)
    body, reference = (text[: found.start()], " " + found[1]) if found else (text, "")
    if len(lines) == 1 and FORMULA.match(body.removesuffix(".")):
        return [f"`{body}`{_escaped(reference)}", ""]
    if (label := LABEL.match(body)) and not first:
        return [f"**{_heading(label[1])}:** {_escaped(label[2] + reference)}", ""]
    return [_escaped(body + reference), ""]


def _heading(title):
    return ", ".join(HEADINGS.get(word, word) for word in title.split(", "))


def _entries(title, block):
    """A list of the names of a section, or its text. Where a line has several names, each gets an item."""
    items, names = [], r"[A-Z]\w+(?:, [A-Z]\w+)*" if title in ("Raises", "Warns", "Returns") else NAMES
    for line in block:
        if line.startswith("     ") or not line.strip():
            if not items:
                items.append("")
            items[-1] += " " + line.strip()
        else:
            items.append(line.strip())
    out = []
    for item in items:
        for part in re.split(rf"(?<=[.]) (?={names}: )", item):
            found = re.match(rf"({names}): +(.*)", part)
            if found and title != "Returns":
                out.append(f"- {', '.join(f'`{name}`' for name in found[1].split(', '))}: {_escaped(found[2])}")
            else:
                out.append(("- " if title not in ("Returns", "Yields") else "") + _escaped(part))
    return out


def _escaped(text):
    """Plain text as Markdown, but for what stands between backticks."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        return _plain(text.replace("`", "'"))
    return "".join(f"`{piece}`" if i % 2 else _plain(piece) for i, piece in enumerate(pieces))


def _plain(text):
    text = re.sub(r"([\\*_\[\]])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))
    return re.sub(r"\b(?:nb|nbnet)\.((?:\w|\\_)+(?:\.(?:\w|\\_)+)*)", _link, text)


def _link(found):
    return f'<autoref identifier="nbnet.{found[1]}" optional>{found[0]}</autoref>'.replace("\\_", "_", found[1].count("\\_"))
