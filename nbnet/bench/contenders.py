"""Contenders: nbnet's backends, the peers, the floors. Each runs in its own process and is driven over a pipe."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from nbnet.bench import workloads
from nbnet.bench.peers import PEERS, QUICK
from nbnet.errors import ArgumentError, BackendError, NbnetError, unknown
from nbnet.runtime.backend import get_backend

PACKAGE = Path(__file__).parents[1]
# A peer's start and memory must not include nbnet's: its worker reaches nbnet.bench without running nbnet/__init__.py.
PEER = """import sys, types
sys.modules["nbnet"] = package = types.ModuleType("nbnet")
package.__path__ = [sys.argv.pop(1)]
from nbnet.bench.worker import main
main()"""
THREADS = {"NUMBA_NUM_THREADS": "{threads}"}
OURS = ("numpy", "serial", "parallel", "cuda")
TIMEOUT = 240.0  # seconds per request; compiling a network takes up to a minute


class ContenderError(NbnetError, RuntimeError):
    """A contender's process could not do what it was asked to."""


class Contender(NamedTuple):
    """name: as in --backends and --peers. module, options: what the worker imports and calls. The rest is defined by the peers' modules."""

    name: str
    title: str
    module: str
    options: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    ops: tuple[str, ...] = ()
    sweeps: bool = True
    quick: bool = True
    package: str = "nbnet"  # whose version is reported

    @property
    def is_ours(self) -> bool:
        return self.package == "nbnet"


def floors() -> Contender:
    """The machine itself."""
    return Contender("floors", "the machine", "nbnet.bench.floors", environment=THREADS)


def backend(name: str) -> Contender:
    """nbnet on a backend.

    Raises:
        BackendError: there is no such backend, or it cannot run here.
    """
    get_backend(name)
    return Contender(name, f"nbnet {name}", "nbnet.bench.ours", (name,), THREADS, tuple(workloads.OPS))


def default_backends() -> list[Contender]:
    """Every backend that runs on this machine."""
    return [backend(name) for name in OURS if _runs_here(name)]


def _runs_here(name: str) -> bool:
    try:
        get_backend(name)
    except BackendError:
        return False
    return True


def peer(name: str) -> Contender:
    """A framework.

    Raises:
        ArgumentError: there is no such peer, or it is not installed.
    """
    found = default_peers(installed=False)
    if name not in found:
        raise ArgumentError(unknown("peer", name, [*found, "none"]))
    contender = found[name]
    if importlib.util.find_spec(contender.package) is None:
        raise ArgumentError(f"peer {name!r} is not installed: pip install {contender.package}, or leave it out of --peers")
    return contender


def default_peers(installed: bool = True) -> dict[str, Contender]:
    """Peers by name: all, or only those whose framework is installed."""
    found = {}
    for name, file in PEERS.items():
        path = f"nbnet.bench.peers.{file}"
        module = importlib.import_module(path)
        if not installed or importlib.util.find_spec(module.PACKAGE) is not None:
            quick = name in QUICK
            found[name] = Contender(name, module.TITLE, path, (), module.ENVIRONMENT, module.OPS, module.SWEEPS, quick, module.PACKAGE)
    return found


class Process:
    """A contender's process.

    Args:
        threads: how many it may use. environment: added to the contender's own.
    Raises:
        ContenderError: it does not start.
    """

    def __init__(self, contender: Contender, threads: int, environment: dict[str, str] | None = None) -> None:
        self.contender, self.threads = contender, threads
        program = ["-m", "nbnet.bench.worker"] if contender.is_ours else ["-c", PEER, str(PACKAGE)]
        given = {name: value.format(threads=threads) for name, value in contender.environment.items()}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, *program, contender.module, str(threads), *contender.options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=dict(os.environ) | given | (environment or {}),
        )

    def wait_until_ready(self) -> None:
        """Wait until the process has imported its framework."""
        self.receive()

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the worker and wait for the answer.

        Raises:
            ContenderError: it failed; the message is one line.
        """
        self.send(method, *arguments)
        return self.receive()

    def send(self, method: str, *arguments: Any) -> None:
        assert self._process.stdin is not None
        try:
            pickle.dump((method, arguments), self._process.stdin)
            self._process.stdin.flush()
        except OSError as error:
            raise ContenderError(self._died()) from error

    def attempt(self, method: Callable[..., Any], *arguments: Any) -> tuple[Any, str | None]:
        """The result of one of these methods, or the reason why there is none."""
        try:
            return method(*arguments), None
        except ContenderError as error:
            return None, str(error)

    def receive(self) -> Any:
        assert self._process.stdout is not None
        timer = threading.Timer(TIMEOUT, self._process.kill)
        timer.start()
        try:
            status, result = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError) as error:
            raise ContenderError(self._died()) from error
        finally:
            timer.cancel()
        if status == "error":
            raise ContenderError(result)
        return result

    def _died(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"its process ended with code {code}" + (f": {lines[-1][:300]}" if lines else "")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]
