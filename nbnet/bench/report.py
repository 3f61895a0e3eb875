"""The schema of a report of nbnet bench, and several reports as one: what benchmarks/readme.py reads."""

from __future__ import annotations

from pathlib import Path
from statistics import median
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


def combined(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Runs of one command as one report: the first, with a summary of them all.

    Returns:
        the report; each line of its summary has the medians of the runs, and "nbnet_each" and "ratio_each": nbnet's figure and the best
        peer's ratio in each run. "runs" is their number.
    """
    found = []
    others = [{line["what"]: line for line in report["summary"]} for report in reports]
    for first in reports[0]["summary"]:
        lines = [of[first["what"]] for of in others if first["what"] in of]
        ratios = {
            name: median(line["ratios"][name] for line in lines)
            for name in first["ratios"]
            if all(name in line["ratios"] for line in lines)
        }
        best = min(ratios, key=lambda name: ratios[name], default=None)
        found.append(
            first
            | {"nbnet": median(line["nbnet"] for line in lines), "ratios": ratios, "best_peer": best}
            | {"of_floor": None if first["of_floor"] is None else median(line["of_floor"] for line in lines)}
            | {"best": None if best is None else ratios[best] * median(line["nbnet"] for line in lines)}
            | {"nbnet_each": [line["nbnet"] for line in lines], "ratio_each": [line["ratios"][best] for line in lines] if best else []}
        )
    return reports[0] | {"summary": found, "runs": len(reports)}


def read_runs(folder: Path) -> dict[str, Any]:
    """The runs in a folder, results.json, results-2.json and so on, as one report.

    Raises:
        DataError: there is no results.json, or a file is damaged.
    """
    return combined([read(folder / "results.json"), *(read(path) for path in sorted(folder.glob("results-*.json")))])
