"""Training on 2 and 4 ranks, one of which fails at a random moment: one line names it within 10 seconds, all ranks end, and no process is
left. Every third run goes on from its last checkpoint on another number of ranks, with the bits of a run that was never stopped.

Run by mpiexec it is a rank: python ranks.py FOLDER EPOCHS WAY RANK SECONDS
"""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path

import numpy as np

WAYS = ("SIGKILL", "raise", "SIGTERM")
PATIENCE, STARTING = 10.0, 120.0  # seconds
LAST = 60  # epochs of a run that is resumed


def attack(rng, folder):
    mpiexec = shutil.which("mpiexec", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))
    whole = _digest(_start(None, 1, folder / "whole", LAST, "none", 0, 0.0))
    for number in range(10**6):
        run, ranks, way = folder / f"run{number}", int(rng.choice((2, 4))), WAYS[number % len(WAYS)]
        rank, resumes = int(rng.integers(ranks)), number % 3 == number // 3 % 3
        process = _start(mpiexec, ranks, run, LAST if resumes else 10**6, way, rank, float(rng.uniform(0.0, 1.0 if resumes else 3.0)))
        what = f"{way} on rank {rank} of {ranks}"
        yield _problem(process, run, way, rank, ranks, what)
        if resumes:
            other = int(rng.choice([count for count in (1, 2, 4) if count != ranks]))
            found = _digest(_start(mpiexec if other > 1 else None, other, run, LAST, "none", 0, 0.0))
            yield None if found == whole else f"{what}, then {other} ranks: the digest is {found}, expected {whole}"


def _start(mpiexec, ranks, run, *words):
    run.mkdir(exist_ok=True)
    command = [sys.executable, str(Path(__file__)), *map(str, (run, *words))]
    command = command if mpiexec is None else [mpiexec, "-n", str(ranks), *command]
    environment = os.environ | {"NUMBA_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _digest(process):
    out, err = process.communicate(timeout=STARTING)
    found = re.findall("digest ([0-9a-f]{16})", out)
    return found[0] if len(found) == 1 and process.returncode == 0 else f"exit code {process.returncode}: {err[-300:]}"


def _problem(process, run, way, rank, ranks, what):
    """What is wrong with how a run ends, or None."""
    until = time.monotonic() + STARTING
    while not (run / "failing").exists():
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            return f"{what}: it has ended or stands still before that: {process.communicate()[1][-300:]}"
        time.sleep(0.01)
    try:
        _, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        return f"{what}: not all ranks have ended after {PATIENCE:g} seconds: {process.communicate()[1][-300:]}"
    name = rf"rank {rank} of {ranks} \(process \d+ on \S+\)"
    said = rf"RankError: {name}: OSError: a disk is full" if way == "raise" else rf"nbnet: error: {name} was killed or has crashed"
    count = len(re.findall(said, err))
    if not 1 <= count <= (ranks - 1 if way == "raise" else 1):
        return f"{what}: named {count} times in {err[-600:]!r}"
    time.sleep(0.2)
    left = [process for process in map(int, (path.name[3:] for path in run.glob("pid*"))) if Path(f"/proc/{process}").exists()]
    return f"{what}: processes {left} are left" if left else None


# ------------------------------------------------------------------------------------------------------------- a rank


def work(folder, epochs, way, rank, seconds):
    import nbnet as nb

    comm = None
    if "PMI_RANK" in os.environ:
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
    own = 0 if comm is None else comm.Get_rank()
    folder = Path(folder)
    (folder / f"pid{os.getpid()}").touch()
    (x, y), _, _ = nb.datasets.load("digits")
    model = nb.Sequential([nb.Conv2D(8, 3), nb.BatchNorm(), nb.ReLU(), nb.Flatten(), nb.Dropout(0.2), nb.Dense(10)])
    model.build((8, 8, 1), seed=1)
    trainer = nb.Trainer(model, optimizer=nb.SGD(0.05, momentum=0.9), comm=comm, slices=8)
    checkpoint = folder / "run.safetensors"
    if checkpoint.exists():
        trainer.restore(checkpoint)

    def fail():
        (folder / "failing").touch()
        os.kill(os.getpid(), getattr(signal, way))

    class Failing(nb.callbacks.Callback):
        def on_train_begin(self, trainer):
            self.began = time.monotonic()
            if own == int(rank) and way.startswith("SIG"):
                timer = threading.Timer(float(seconds), fail)
                timer.daemon = True
                timer.start()

        def on_batch_end(self, trainer):
            if own == int(rank) and way == "raise" and time.monotonic() - self.began > float(seconds):
                (folder / "failing").touch()
                raise OSError("a disk is full")
            if trainer.step % 3 == 0:
                trainer.save(checkpoint)

    trainer.fit((x[:300], y[:300]), int(epochs), 48, callbacks=[Failing()], progress=False)
    if own == 0:
        arrays = sorted(trainer.state().arrays.items())
        digest = hashlib.sha256(b"".join(name.encode() + np.ascontiguousarray(array).tobytes() for name, array in arrays)).hexdigest()
        print("digest", digest[:16], flush=True)


if __name__ == "__main__":
    work(*sys.argv[1:])
