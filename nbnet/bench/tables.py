"""The report as a table on the terminal."""

from __future__ import annotations

from typing import Any

from nbnet.bench.results import NBNET, fastest_peer


def seconds(value: float) -> str:
    """Three digits in a suitable unit: "12.3 ms"."""
    unit, size = ("s", 1.0) if value >= 1 else ("ms", 1e-3) if value >= 1e-3 else ("µs", 1e-6)
    return f"{digits(value / size)} {unit}"


def digits(value: float) -> str:
    """Three significant digits without an exponent: 0.123, 1.23, 12.3, 123, 1,234."""
    return (
        f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}" if value >= 0.9995 else f"{value:.3g}"
    )


def show(report: dict[str, Any]) -> None:
    """Print a line per workload and contender, and a summary of the run."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 150)
    table = Table("workload", "contender", box=None, pad_edge=False)
    for name in ("median", "10 to 90 %", "ratio", "GFLOP/s", "GB/s", "of floor"):
        table.add_column(name, justify="right", no_wrap=True)
    main = [row for row in report["results"] if row["threads"] == report["threads"] and not row["sweep"]]
    for row in main:
        best = fastest_peer(row["contenders"], report["peers"])
        medians = {name: each["median"] for name, each in row["contenders"].items()}
        ordered = sorted(medians, key=medians.__getitem__)
        for i, name in enumerate(ordered):
            cells = _cells(row["contenders"][name])
            style = "bold green" if name == NBNET else "bold" if name == best else None
            table.add_row(row["workload"] if i == 0 else "", report["titles"][name], *cells, style=style)
        for name, why in row["failed"].items():
            table.add_row("", report["titles"][name], "failed", why[:60], style="red")
        table.add_section()
    console.print(table)
    console.print(_floors(report), highlight=False)
    console.print(_summary(report))


def _cells(each: dict[str, Any]) -> list[str]:
    share = "" if each["of_floor"] is None else f"{100 * each['of_floor']:.0f} %"
    ratio = "" if each["ratio"] is None else f"{each['ratio']:.2f}"
    spread = f"{seconds(each['p10'])} to {seconds(each['p90'])}"
    return [seconds(each["median"]), spread, ratio, digits(each["gflops"]), digits(each["gbs"]), share]


def _floors(report: dict[str, Any]) -> str:
    lines = []
    for threads, rates in report["floors"].items():
        copies, loops = (", ".join(f"{digits(rates[name]['median'])} {what}" for name, what in names) for names in _NAMES)
        lines.append(f"\nthe machine, {threads} thread{'s' if threads != '1' else ''}: copy {copies} GB/s; FMA {loops} GFLOP/s")
    lines.append(
        "\nof floor: the time in which the machine copies the bytes or does the operations of the definition, whichever takes longer,"
        "\nover the median; above 100 % where a kernel needs fewer operations (minimal filtering) or finds its data in the caches"
    )
    return "".join(lines)


_NAMES = (
    (("copy", "(plain stores)"), ("copy_streaming", "(streaming stores)")),
    (("fma_float32", "(float32)"), ("fma_float64", "(float64)")),
)


def _summary(report: dict[str, Any]) -> Any:
    from rich.table import Table

    title = "slowdown of the others relative to nbnet" if report["peers"] else "nbnet's figures"
    table = Table(title=f"\n{title}", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for name in ("nbnet", *(report["titles"][peer] for peer in report["peers"]), "of floor"):
        table.add_column(name, justify="right")
    for line in report["summary"]:
        ratios = [_ratio(line["ratios"].get(peer)) for peer in report["peers"]]
        share = "" if line["of_floor"] is None else f"{100 * line['of_floor']:.0f} %"
        table.add_row(line["what"], f"{digits(line['nbnet'])} {line['unit']}", *ratios, share)
    return table


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
