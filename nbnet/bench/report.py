"""The schema of a report of nbnet bench: what benchmarks/readme.py reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nbnet import schema
from nbnet.bench.results import FORMAT
from nbnet.errors import DataError

_LINE, _NAMES, _SECONDS = schema.text(), schema.rows(schema.text()), schema.number(above=0)
_SHARE = schema.optional(schema.number(0))
_CONTENDER = schema.record(
    median=_SECONDS,
    p10=_SECONDS,
    p90=_SECONDS,
    calls=schema.whole(1),
    turns=schema.whole(1),
    gflops=schema.number(0),
    gbs=schema.number(0),
    of_floor=_SHARE,
    ratio=_SHARE,
)
_RATE = schema.record(p10=_SECONDS, median=_SECONDS, p90=_SECONDS, samples=schema.whole(1))
_ROW = schema.record(
    workload=_LINE,
    op=_LINE,
    part=_LINE,
    size=_LINE,
    shape=schema.rows(schema.whole(1), 1),
    outputs=schema.whole(),
    dtype=schema.one_of(("float32", "float64")),
    threads=schema.whole(1),
    sweep=schema.truth,
    gflop=schema.number(0),
    gigabytes=schema.number(0),
    contenders=schema.mapping(_CONTENDER),
    failed=schema.mapping(schema.text(1000)),
)
_SUMMARY = schema.record(
    what=_LINE,
    unit=_LINE,
    nbnet=schema.number(0),
    best_peer=schema.optional(_LINE),
    best=_SHARE,
    ratios=schema.mapping(_SECONDS),
    of_floor=_SHARE,
)
_MACHINE = {"python": _LINE, "cpu": _LINE, "vector features": _LINE, "processors": schema.whole(1), "memory_bytes": schema.whole()}
REPORT = schema.record(
    command=schema.text(1000),
    date=_LINE,
    machine=schema.record(**_MACHINE),
    versions=schema.mapping(_LINE),
    format=schema.whole(FORMAT, FORMAT),
    threads=schema.whole(1),
    backends=_NAMES,
    peers=_NAMES,
    titles=schema.mapping(_LINE),
    quick=schema.truth,
    floors=schema.mapping(schema.mapping(_RATE)),
    results=schema.rows(_ROW),
    start=schema.mapping(schema.record(seconds=_SECONDS, peak_bytes=schema.number(0), each=schema.rows(_SECONDS))),
    absent=schema.mapping(schema.text(1000)),
    seconds=_SECONDS,
    summary=schema.rows(_SUMMARY),
)


def read(path: Path) -> dict[str, Any]:
    """The report in a results.json.

    Raises:
        DataError: there is none, or it is damaged or of another version.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; write it with nbnet bench --out") from error
    return schema.parse(text, REPORT, f"{path} is damaged", DataError)
