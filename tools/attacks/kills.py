"""`nbnet train`, killed at random moments and resumed: it ends with the bits of a run that was never killed, and leaves no other files."""

import json
import shutil
import subprocess
import sys
import time

from nbnet import storage

OPTIONS = "--data digits --epochs 4 --batch-size 32 --backend {} --seed {}"
BACKENDS = ("serial", "parallel", "numpy")
PATIENCE = 300  # seconds until a run that does not end has failed


def attack(rng, folder):
    seconds, expected = {}, {}
    for backend in BACKENDS:
        _nbnet(f"train {OPTIONS.format(backend, 0)} --out {backend}", folder).wait(PATIENCE)  # compiles
        began = time.perf_counter()
        _nbnet(f"train {OPTIONS.format(backend, 1)} --out {backend}-1", folder).wait(PATIENCE)
        seconds[backend], expected[backend] = time.perf_counter() - began, _content(folder / f"{backend}-1")
    files = {path.name for path in (folder / "serial-1").iterdir()}
    while True:
        backend = str(rng.choice(BACKENDS))
        run = folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        kills, line = 0, f"train {OPTIONS.format(backend, 1)} --out run"
        while kills < 20:
            process = _nbnet(line, folder)
            try:
                process.wait(float(rng.uniform(0.1, 1.05)) * seconds[backend])
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kills += 1
                yield None
            else:
                break
            if (run / "config.json").exists() and (run / "model.safetensors").exists():
                line = "train --resume run"
        if process.returncode:  # the last of many kills, or an error
            process = _nbnet(line, folder)
            process.wait(PATIENCE)
        where, error = f"{backend} after {kills} kills", process.stderr.read().decode()
        if process.returncode and "is complete after" not in error:  # killed after it had written its last file
            yield f"{where}: exit code {process.returncode}: {error[-300:]}"
        elif _content(run) != expected[backend]:
            yield f"{where}: other bits than without a kill"
        elif {path.name for path in run.iterdir()} != files:
            yield f"{where}: the run folder has {sorted(path.name for path in run.iterdir())}, expected {sorted(files)}"


def _nbnet(words, folder):
    command = [sys.executable, "-m", "nbnet", *words.split()]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _content(run):
    """What a run ends with, without times."""
    arrays, metadata = storage.read(run / "model.safetensors")
    state = json.loads(metadata["run"])
    for part in (state["history"], state["position"]):
        part.pop("seconds", None)
    return {name: array.tobytes() for name, array in arrays.items()}, state
