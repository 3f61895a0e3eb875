"""Calls of the runtime before every access to memory, and the places in the source that they come from."""

import linecache
import re
from dataclasses import dataclass
from pathlib import Path

ACCESS = re.compile(
    r"\s+(?:%\S+ = )?(?P<what>load|store|atomicrmw|cmpxchg)(?: atomic| weak)?(?: volatile)? (?P<text>.*?), align (?P<alignment>\d+)"
)
POINTER = {
    "load": re.compile(r"(?P<type>.+?), ptr (?P<pointer>.+)"),
    "store": re.compile(r"(?P<type><[^>]*>|\{[^}]*\}|\[[^]]*\]|\S+) .*?, ptr (?P<pointer>.+)"),
    "atomicrmw": re.compile(r"\w+ ptr (?P<pointer>.+?), (?P<type>\S+) .*"),
    "cmpxchg": re.compile(r"ptr (?P<pointer>.+?), (?P<type>\S+) .*"),
}
CALLS = {"load": "read", "store": "write", "atomicrmw": "atomic", "cmpxchg": "atomic"}
BYTES = {"float": 4, "double": 8, "ptr": 8, "half": 2, "i1": 1, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "i128": 16}
BARRIER = re.compile(r'(?P<start>\s+(?:tail )?call void )@"?gpu\.barrier0"?\(\)')
WARP_BARRIER = re.compile(r'(?P<start>\s+(?:tail )?call void )@"?gpu\.bar\.warp\.sync"?\((?P<values>.*?)\)')
FILL = re.compile(r"\s+(?:tail )?call void @llvm\.mem(?:set|cpy|move)\S*\((?P<to>ptr [^,]*), (?P<value>[^,]*), i64 (?P<size>[^,]*),")
SHUFFLE = re.compile(r'(?P<start>\s+%\S+ = (?:tail )?call \{ i32, i1 \} )@"?gpu\.shfl\.sync\.i32"?\((?P<values>.*?)\)')
LOCAL = re.compile(r"\s+(%\S+) = alloca ")
ENTRY = "gpu_entry"  # the function that unpacks the arguments
DECLARED = """declare void @gpu_read(ptr, i64, i64, i32)
declare void @gpu_write(ptr, i64, i64, i32)
declare void @gpu_atomic(ptr, i64, i64, i32)
declare void @gpu_barrier(i32)
declare void @gpu_warp_barrier(i32, i32)
declare { i32, i1 } @gpu_shuffle(i32, i32, i32, i32, i32, i32)
"""


@dataclass(frozen=True)
class Place:
    """A line of a function, and the place that the function was called from, if it became a part of its caller."""

    file: str
    line: int
    function: str
    caller: "Place | None" = None

    def __str__(self):
        text = linecache.getline(self.file, self.line).strip()
        path = Path(self.file)
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        called = f", called from {self.caller}" if self.caller else ""
        return f"{shown}:{self.line} in {self.function}{f': {text}' if text and not self.caller else ''}{called}"


def size_of(kind):
    """Bytes of a type in LLVM IR."""
    many = re.fullmatch(r"[<\[](\d+) x (.+)[>\]]", kind)
    if many:
        return int(many[1]) * size_of(many[2])
    if kind not in BYTES:
        raise NotImplementedError(f"the executor does not know the size of {kind}: add it to tests/gpu/executor/checks.py")
    return BYTES[kind]


class Places:
    """Numbers for the places that the debug information of IR names."""

    def __init__(self, text):
        self._metadata = dict(re.findall(r"^(!\d+) = (.*)$", text, re.MULTILINE))
        self._numbers, self._last = {}, None
        self.places = []

    def number_of(self, line):
        """The number of the place that a line of IR comes from; of the line before it, if it does not say so."""
        self.pass_by(line)
        place = self._location(self._last) if self._last else None
        if place not in self._numbers:
            self._numbers[place] = len(self.places)
            self.places.append(place)
        return self._numbers[place]

    def pass_by(self, line):
        """Remember the place of a line of IR, if it has one."""
        found = re.search(r"!dbg (!\d+)", line)
        if found and not line.startswith("define "):
            self._last = found[1]

    def _fields(self, name):
        return dict(re.findall(r'(\w+): (!?\d+|"[^"]*")', self._metadata[name]))

    def _location(self, name):
        fields = self._fields(name)
        scope = self._fields(fields["scope"])
        while "name" not in scope:  # a block of a function
            scope = self._fields(scope["scope"])
        file = self._fields(scope["file"])
        path = str(Path(file["directory"].strip('"'), file["filename"].strip('"')))
        caller = self._location(fields["inlinedAt"]) if "inlinedAt" in fields else None
        return Place(path, int(fields["line"]), scope["name"].strip('"'), caller)


def shared_names(text):
    """The variables that hold shared arrays, as far as the source of their declaration tells: {name in the IR: name in the source}."""
    places, names = Places(text), {}
    for line in text.splitlines():
        found = re.search(r"bitcast ptr @\"?(_cudapy_smem_\d+)\"? to ptr", line)
        if found and "!dbg" in line:
            place = places.places[places.number_of(line)]
            names[found[1]] = linecache.getline(place.file, place.line).partition("=")[0].strip() or found[1]
    return names


def checked(text):
    """Optimised IR with calls before its accesses, and the list of their places."""
    places, lines, local, function = Places(text), [], set(), ""
    for line in text.splitlines():
        if line.startswith("define "):
            function, local = line, set()
        places.pass_by(line)
        found = LOCAL.match(line)
        if found:
            local.add(found[1])
        access = ACCESS.match(line) if f"@{ENTRY}(" not in function else None
        if access:
            lines += _check(access, places.number_of(line), local)
        elif BARRIER.match(line):
            line = BARRIER.sub(rf"\g<start>@gpu_barrier(i32 {places.number_of(line)})", line)
        elif WARP_BARRIER.match(line):
            line = WARP_BARRIER.sub(rf"\g<start>@gpu_warp_barrier(\g<values>, i32 {places.number_of(line)})", line)
        elif SHUFFLE.match(line):
            line = SHUFFLE.sub(rf"\g<start>@gpu_shuffle(\g<values>, i32 {places.number_of(line)})", line)
        elif FILL.match(line):
            lines += _check_fill(FILL.match(line), places.number_of(line))
        if not line.startswith("!") and "#dbg_" not in line:  # metadata has served
            lines.append(re.sub(r",? ![\w.]+ !\d+", "", line))
    return "\n".join(lines) + "\n" + DECLARED, places.places


def _check(access, site, local):
    what = access["what"]
    found = POINTER[what].fullmatch(access["text"])
    if not found:
        raise NotImplementedError(f"the executor does not understand this access: {access[0].strip()}")
    pointer, size = found["pointer"], size_of(found["type"])
    if pointer in local or "@gpu_registers" in pointer:
        return []
    alignment = min(int(access["alignment"]), size & -size, 16)
    return [f"  call void @gpu_{CALLS[what]}(ptr {pointer}, i64 {size}, i64 {alignment}, i32 {site})"]


def _check_fill(fill, site):
    """Many bytes that are written, and read if they are copied."""
    for call, operand in (("write", fill["to"]), ("read", fill["value"])):
        if operand.startswith("ptr "):
            yield f"  call void @gpu_{call}(ptr {operand.split()[-1]}, i64 {fill['size']}, i64 1, i32 {site})"
