"""Write the README's table and picture from the committed results: python benchmarks/readme.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "cpu" / "results.json"
ELSEWHERE = ROOT / "benchmarks" / "results" / "cpu-avx2" / "results.json"  # a processor without AVX-512
FIRST, LAST = "<!-- benchmarks/readme.py writes from here -->\n", "<!-- to here -->\n"
HOW = [
    "checked against the NumPy reference, and takes turns with the others; the best peer is bold. What the machine can do is a memory copy",
    "and a loop of nothing but FMA, measured in the same run; what fits into a cache can be quicker than that copy.",
]
NAMES = {
    "five-conv batch 128": "five-conv, batch 128: a training step",
    "five-conv batch 32": "five-conv, batch 32",
    "mnist-cnn batch 64": "MNIST CNN (32 and 64 filters, dense 128), batch 64",
    "digits-cnn batch 64": "digits CNN (16 and 32 filters), batch 64",
    "mlp batch 1,000": "MLP 3-300-3, batch norm, tanh, 1,000 rows, float64",
}


def digits(value: float) -> str:
    """Three digits."""
    return (
        f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}" if value >= 0.9995 else f"{value:.3g}"
    )


def block(report: dict[str, Any]) -> str:
    """The README's part on speed: a picture, a table with a line for each of the report's summary, and where the figures are from."""
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
    """A paragraph on another machine: how many times nbnet's figure the best peer has."""
    lines = [line for line in report["summary"] if line["best_peer"] is not None]
    best = "; ".join(f"{line['what']} {line['ratios'][line['best_peer']]:.2f}" for line in lines)
    machine, folder = report["machine"], ELSEWHERE.parent.relative_to(ROOT).as_posix()
    where = f"{machine['cpu']} with {machine['vector features']}, {report['threads']} threads, {report['date']}"
    return f"\nThe same without AVX-512 ({where}; [results]({folder})), times nbnet's figure of the best peer: {best}.\n"


def _ratio(value: float | None, best: bool) -> str:
    return "" if value is None else f"**{value:.2f}**" if best else f"{value:.2f}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else "".join(names)


def rewrite(readme: str, report: dict[str, Any], other: dict[str, Any]) -> str:
    """The README with the part between the marks replaced. other: the report of another machine."""
    before, _, rest = readme.partition(FIRST)
    _, _, after = rest.partition(LAST)
    return f"{before}{FIRST}{block(report)}{elsewhere(other)}{LAST}{after}"


if __name__ == "__main__":
    path = ROOT / "README.md"
    reports = [json.loads(file.read_text(encoding="utf-8")) for file in (RESULTS, ELSEWHERE)]
    path.write_text(rewrite(path.read_text(encoding="utf-8"), *reports), encoding="utf-8")
