"""Test cases of ONNX and PyTorch on nbnet: python tools/conformance.py [onnx opinfo modules] [--expanded] [--reasons]

Runs the node tests of ONNX, and samples of PyTorch's OpInfo and ModuleInfo with their gradients, through nbnet.functional, translated from
channels first. Prints how many passed, failed and cannot be expressed, by operator, and why. Needs onnx, torch and expecttest.
"""

import argparse
import collections
import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the table of tolerances

SUITES = {"onnx": "onnx_nodes", "opinfo": "torch_ops", "modules": "torch_modules"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="SUITE", choices=[[], *SUITES], help=f"{', '.join(SUITES)} (default: all)")
    parser.add_argument("--expanded", action="store_true", help="also run ONNX's cases as functions of simpler operators (the same data)")
    parser.add_argument("--reasons", action="store_true", help="name each case that cannot be expressed, with its reason")
    options = parser.parse_args()
    failed = sum(report(name, options) for name in options.suites or SUITES)
    return int(failed > 0)


def attempt(run):
    """The outcome of a case and why. nbnet's own errors mean that it refuses such a case."""
    from conform.calls import NotExpressible

    import nbnet as nb

    try:
        run()
    except (NotExpressible, nb.NbnetError) as error:
        return "not expressible", str(error)
    except Exception as error:
        return "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return "passed", ""


def report(name, options):
    """Run a suite and print its table; return how many cases failed."""
    suite = importlib.import_module(f"conform.{SUITES[name]}")
    counts, reasons, failures = collections.defaultdict(collections.Counter), collections.defaultdict(list), []
    for operator, title, run in suite.cases(options.expanded):
        outcome, message = attempt(run)
        counts[operator][outcome] += 1
        if outcome == "failed":
            failures.append(f"  {operator} {title}: {message}")
        elif outcome == "not expressible":
            reasons[operator, message].append(title)
    total = sum(counts.values(), collections.Counter())
    print(f"\n{name}: {total.total():,} cases: {total['passed']:,} passed, {total['failed']:,} failed, ", end="")
    print(f"{total['not expressible']:,} not expressible")
    for operator, count in sorted(counts.items()):
        print(f"  {operator:45} {count['passed']:6} passed {count['failed']:4} failed {count['not expressible']:5} not expressible")
    print(*failures, sep="\n", end="\n" if failures else "")
    for (operator, reason), titles in sorted(reasons.items()):
        print(f"  {len(titles):5} {operator}: {reason}")
        if options.reasons:
            print(*(f"          {title}" for title in titles), sep="\n")
    return total["failed"]


if __name__ == "__main__":
    sys.exit(main())
