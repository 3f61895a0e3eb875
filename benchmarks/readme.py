"""Write the README's table and the tables of docs/performance.md from the committed results: python benchmarks/readme.py"""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from nbnet.bench.report import read
from nbnet.bench.tables import digits, seconds
from nbnet.storage import write_file

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "cpu" / "results.json"
ELSEWHERE = ROOT / "benchmarks" / "results" / "cpu-avx2" / "results.json"  # a processor without AVX-512
OURS = "parallel"
FIRST, LAST = "<!-- benchmarks/readme.py writes from here -->\n", "<!-- to here -->\n"
HOW = [
    "checked against the NumPy reference, and takes turns with the others; the best peer is bold. What the machine can do is a memory copy",
    "and a loop of FMA instructions, measured in the same run; a kernel whose data fits into a cache can exceed that copy.",
]
NAMES = {
    "five-conv batch 128": "five-conv, batch 128: a training step",
    "five-conv batch 32": "five-conv, batch 32",
    "mnist-cnn batch 64": "MNIST CNN (32 and 64 filters, dense 128), batch 64",
    "digits-cnn batch 64": "digits CNN (16 and 32 filters), batch 64",
    "mlp batch 1,000": "MLP 3-300-3, batch norm, tanh, 1,000 rows, float64",
}


# --------------------------------------------------------------------------------------------------------- README


def block(report: dict[str, Any]) -> str:
    """The README's section on speed: a picture, a table with a row per line of the report's summary, and the origin of the figures."""
    titles = report["titles"]
    peers = [name for name in report["peers"] if any(name in line["ratios"] for line in report["summary"])]
    lines = [
        f"![One training step of four networks in nbnet and {_listed([titles[name] for name in peers])}](benchmarks/results/cpu/steps.png)",
        "",
        "| times nbnet's figure | nbnet | " + " | ".join(titles[name] for name in peers) + " | of what the machine can do |",
        "|---|---|" + "---|" * (len(peers) + 1),
    ]
    for line in report["summary"]:
        ratios = [_ratio(line["ratios"].get(name), name == line["best_peer"]) for name in peers]
        share = "" if line["of_floor"] is None else f"{100 * line['of_floor']:.0f} %"
        name = NAMES.get(line["what"], line["what"])
        lines.append(f"| {name} | {digits(line['nbnet'])} {line['unit']} | {' | '.join(ratios)} | {share} |")
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    threads = f"{report['threads']} thread{'s' if report['threads'] > 1 else ''}"
    where = f"{report['date']}; {report['machine']['cpu']}, {threads}; {versions}"
    lines += ["", f"Medians of one run of `{report['command']}` ({where}). Every contender has a process of its own, is", *HOW]
    return "\n".join(lines) + "\n"


def elsewhere(report: dict[str, Any]) -> str:
    """A paragraph on another machine: the best peer's figures as multiples of nbnet's."""
    lines = [line for line in report["summary"] if line["best_peer"] is not None]
    best = "; ".join(f"{line['what']} {line['ratios'][line['best_peer']]:.2f}" for line in lines)
    machine, folder = report["machine"], ELSEWHERE.parent.relative_to(ROOT).as_posix()
    where = f"{machine['cpu']} with {machine['vector features']}, {report['threads']} threads, {report['date']}"
    return f"\nThe same without AVX-512 ({where}; [results]({folder})), times nbnet's figure of the best peer: {best}.\n"


def _ratio(value: float | None, best: bool) -> str:
    return "" if value is None else f"**{value:.2f}**" if best else f"{value:.2f}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else "".join(names)


# ------------------------------------------------------------------------------------------- docs/performance.md


def tables(reports: dict[str, dict[str, Any]]) -> str:
    """All tables. reports: by machine."""
    return "\n".join(["### What each kernel reaches", "", *_reached(reports), "", "### How cost grows", "", *_growth(reports)]) + "\n"


def _reached(reports: dict[str, dict[str, Any]]) -> list[str]:
    measured = {name: {row["workload"]: row for row in _rows(report)} for name, report in reports.items()}
    first = next(iter(measured.values()))
    lines = [
        "A row's floor is its counted arithmetic or traffic at the rate of the FMA loop or of the copy, measured in the same run; a",
        "training step's is the sum over its layers. Minimal filtering multiplies less often than the definition, whose operations are",
        "counted; fused layers move less data; a kernel whose data fits into a cache can exceed the copy. So a row can exceed 100 %.",
        "",
        "| | counted | " + " | ".join(f"{name} | of floor" for name in reports) + " |",
        "|---|---|" + "---|---|" * len(reports),
    ]
    for workload, row in first.items():
        if row["sweep"]:
            continue
        cells = []
        for rows in measured.values():
            if workload not in rows:
                cells.append(" | ")
                continue
            ours = rows[workload]["contenders"][OURS]
            rate = f"{digits(ours['gflops'])} GFLOP/s" if _by_arithmetic(row) else f"{digits(ours['gbs'])} GB/s"
            cells.append(f"{seconds(ours['median'])}, {rate} | {100 * ours['of_floor']:.0f} %")
        counted = f"{digits(row['gflop'] * 1e3)} MFLOP" if _by_arithmetic(row) else f"{digits(row['gigabytes'] * 1e3)} MB"
        lines.append(f"| {workload} | {counted} | {' | '.join(cells)} |")
    return lines


def _by_arithmetic(row: dict[str, Any]) -> bool:
    """Whether arithmetic takes longer than traffic, if a byte takes as long as about five operations."""
    return row["gflop"] > 5 * row["gigabytes"]


def _rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in report["results"] if row["threads"] == report["threads"] and OURS in row["contenders"]]


def _growth(reports: dict[str, dict[str, Any]]) -> list[str]:
    each = [_growths(report) for report in reports.values()]
    lines = [f"| {what} | {' | '.join(growths.get(what, '') for growths in each)} |" for what in each[0]]
    return ["| | " + " | ".join(reports) + " |", "|---|" + "---|" * len(reports), *lines]


def _growths(report: dict[str, Any]) -> dict[str, str]:
    """Costs by what grows."""
    found = {}
    batches: dict[str, dict[int, float]] = defaultdict(dict)
    for row in _rows(report):
        rest = "x".join(map(str, row["shape"][1:])) + (f"-{row['outputs']}" if row["outputs"] else "")
        batches[" ".join(filter(None, (row["op"], row["part"], rest)))][row["shape"][0]] = row["contenders"][OURS]["median"]
    for name, times in batches.items():
        if len(times) > 1:
            found[f"{name}, an image of a batch of"] = "; ".join(f"{n}: {seconds(times[n] / n)}" for n in sorted(times))
    for part in ("forward", "backward_data", "backward_weights"):
        same = [row for row in _rows(report) if row["part"] == part and row["shape"][0] == 128]
        pixels = {row["shape"][1]: row for row in same if (row["shape"][3], row["outputs"]) == (64, 64)}
        cost = {size: row["contenders"][OURS]["median"] / math.prod(row["shape"][:3]) for size, row in pixels.items()}
        found[f"conv2d {part} 64-64, a pixel of images of"] = "; ".join(f"{n} x {n}: {digits(cost[n] * 1e9)} ns" for n in sorted(cost))
        channels = {f"{row['shape'][3]}-{row['outputs']}": row for row in same if row["shape"][1] == (32 if row["shape"][3] < 8 else 8)}
        cost = {name: row["contenders"][OURS]["gflops"] for name, row in channels.items()}
        found[f"conv2d {part}, operations of the definition, channels"] = "; ".join(
            f"{name}: {digits(cost[name])} GFLOP/s" for name in sorted(cost, key=len)
        )
    for row in report["results"]:
        if row["threads"] != report["threads"] and OURS in row["contenders"]:
            main = next(other for other in _rows(report) if other["workload"] == row["workload"])
            times = {each["threads"]: each["contenders"][OURS]["median"] for each in (row, main)}
            found[f"{row['workload']}, threads"] = "; ".join(f"{n}: {seconds(times[n])}" for n in sorted(times))
    return found


# --------------------------------------------------------------------------------------------------------- the files


def within(text: str, written: str) -> str:
    """The text with the part between the marks replaced."""
    before, _, rest = text.partition(FIRST)
    _, _, after = rest.partition(LAST)
    return f"{before}{FIRST}{written}{LAST}{after}"


def rewritten(report: dict[str, Any], other: dict[str, Any]) -> dict[Path, str]:
    """The expected contents of both files. other: the report of another machine."""
    readme, performance = ROOT / "README.md", ROOT / "docs" / "performance.md"
    machines = {"AVX2": other, "AVX-512": report}
    return {
        readme: within(readme.read_text(encoding="utf-8"), block(report) + elsewhere(other)),
        performance: within(performance.read_text(encoding="utf-8"), tables(machines)),
    }


if __name__ == "__main__":
    for path, text in rewritten(read(RESULTS), read(ELSEWHERE)).items():
        write_file(path, text.encode())
