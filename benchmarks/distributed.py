"""Training on several ranks, measured and predicted: python benchmarks/distributed.py [--out benchmarks/results/distributed]

Measured on this machine, each in turn, several rounds: a training step with 256 rows in one process with all threads, on two ranks with one
thread each (mpiexec), and in PyTorch DistributedDataParallel (gloo) on two ranks with one thread each. Also what a rank sends in a
step, the part of a step in which it sends or waits, and how long messages of 8 bytes to 8 MiB take, to which latency and time per byte
are fitted.

Predicted: steps on up to 512 ranks of two networks, from the measured time of one rank, the counted messages and bytes, and the
latencies and rates in NETWORKS, which are typical figures, not measurements.

Needs pip install 'nbnet[mpi]' torch. Writes distributed.json and distributed.png.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROWS, WARM, SECONDS, ROUNDS = 256, 5, 2.0, 3
MODELS = ("five-conv", "airbench")
WAYS = {"one process": (1, 2), "two ranks": (2, 1), "DDP": (2, 1)}  # ranks, and threads of each
SIZES = [8 << (2 * i) for i in range(11)]  # bytes of messages, up to 8 MiB
NETWORKS = {"10 Gbit/s Ethernet": (30e-6, 0.8e-9), "100 Gbit/s InfiniBand": (2e-6, 0.08e-9)}  # seconds of a message, and of a byte
RANKS = [1 << i for i in range(10)]
ALONE = [256, 128, 64, 32, 16, 8]  # rows of one rank with one thread


# ------------------------------------------------------------------------------------------------------------ workers


def trainer_of(model, comm, rows):
    import nbnet as nb
    from nbnet.bench import networks, ours

    if model != "airbench":
        network = networks.NETWORKS[model]
        return ours.trainer(network, nb.get_backend("parallel"), comm=comm), *networks.batch(network, rows)
    rng = np.random.default_rng(0)
    x, y = rng.random((rows, 32, 32, 3), np.float32), rng.integers(0, 10, rows)
    made = nb.models.airbench()
    made.build((32, 32, 3))
    return nb.recipes.airbench(made, x, batch_size=rows, comm=comm), x, y


def timed(step, barrier=lambda count=None: count):
    """The median of the seconds of a step; all ranks take as many."""
    for _ in range(WARM):
        step()
    barrier()
    began = time.perf_counter()
    step()
    count, times = max(5, int(SECONDS / (time.perf_counter() - began))), []
    for _ in range(barrier(count)):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def nbnet_worker(model, ranks, rows):
    if ranks == 1:
        trainer, x, y = trainer_of(model, None, rows)
        return {"seconds": timed(lambda: trainer.train_batch(x, y))}
    from mpi4py import MPI

    from nbnet.distributed import Ranks

    comm, spent = MPI.COMM_WORLD, [0.0]
    for name in ("start", "wait", "is_done"):
        setattr(Ranks, name, clocked(getattr(Ranks, name), spent))
    trainer, x, y = trainer_of(model, comm, rows)
    sent, per_step = [], []

    def step():
        spent[0], before = 0.0, (trainer.ranks.messages, trainer.ranks.bytes)
        trainer.train_batch(x, y)
        per_step.append(spent[0])
        sent.append((trainer.ranks.messages - before[0], trainer.ranks.bytes - before[1]))

    seconds = timed(step, lambda count=None: comm.bcast(count))
    messages, size = sent[-1]
    gradients = sum(param.value.nbytes for param in trainer.model.params.values())
    return {
        "seconds": seconds,
        "communication": statistics.median(per_step[WARM:]),
        "messages": messages,
        "bytes": size,
        "gradients": gradients,
    }


def clocked(method, spent):
    """The method, whose seconds are added to spent; calls inside another one are part of it."""

    def call(*args, **options):
        outer, began = spent[0], time.perf_counter()
        try:
            return method(*args, **options)
        finally:
            spent[0] = outer + time.perf_counter() - began

    return call


def ddp_worker(model, rows):
    import torch
    from torch import distributed, nn

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    torch.manual_seed(0)
    rng = np.random.default_rng(rank)
    x = torch.from_numpy(rng.random((rows // size, 3, 32, 32), np.float32)).contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(rng.integers(0, 10, rows // size))
    if model == "airbench":
        sys.path.insert(0, str(Path(__file__).parent))
        import airbench_torch

        made = airbench_torch.Network(10, "gelu")
        made.whiten.weight.requires_grad = False
        options = {"label_smoothing": airbench_torch.SMOOTHING}
    else:
        from nbnet.bench import networks
        from nbnet.bench.peers.torch_eager import Contender

        made, options = Contender(1)._model(networks.NETWORKS[model]), {}
    made = nn.parallel.DistributedDataParallel(made.to(memory_format=torch.channels_last))
    trained = [param for param in made.parameters() if param.requires_grad]
    fast = {"momentum": 0.85, "nesterov": True, "lr": 1e-3}
    optimizer = torch.optim.SGD(trained, **fast) if model == "airbench" else torch.optim.Adam(trained, fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(made(x), y, **options)
        loss.backward()
        optimizer.step()
        return loss.item()

    def agreed(count=None):
        number = torch.tensor([count or 0])
        distributed.broadcast(number, 0)
        return int(number)

    found = {"seconds": timed(step, agreed)}
    distributed.destroy_process_group()
    return found


def messages_worker():
    """Seconds of a message of each size: half of a message there and back."""
    from mpi4py import MPI

    comm, found = MPI.COMM_WORLD, {}
    for size in SIZES:
        data, times = np.zeros(size, np.uint8), []
        for _ in range(200 if size < 1 << 20 else 40):
            comm.Barrier()
            began = time.perf_counter()
            if comm.rank == 0:
                comm.Send(data, 1)
                comm.Recv(data, 1)
            else:
                comm.Recv(data, 0)
                comm.Send(data, 0)
            times.append((time.perf_counter() - began) / 2)
        found[size] = statistics.median(times)
    return found


def work(words):
    way, *rest = words
    if way == "messages":
        found = messages_worker()
    elif way == "DDP":
        found = ddp_worker(rest[0], int(rest[1]))
    else:
        found = nbnet_worker(rest[0], int(rest[2]), int(rest[1]))
    if int(os.environ.get("PMI_RANK", os.environ.get("RANK", 0))) == 0:
        print("@" + json.dumps(found), flush=True)


# -------------------------------------------------------------------------------------------------------- measurement


def run(ranks, threads, *words):
    """What the first rank of a worker found."""
    command = [sys.executable, __file__, "--worker", *map(str, words)]
    kept = "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=4294967296"
    environment = os.environ | {"NUMBA_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads), "GLIBC_TUNABLES": kept}
    if words[0] == "DDP":
        place = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29533"}
        started = [
            subprocess.Popen(command, env=environment | place | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
            for rank in range(ranks)
        ]
        out = "".join([process.communicate()[0] for process in started])
    else:
        command = [shutil.which("mpiexec"), "-n", str(ranks), *command] if ranks > 1 else command
        out = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(next(line[1:] for line in out.splitlines() if line.startswith("@")))


def measure():
    found = {"rows": ROWS, "rounds": ROUNDS, "networks": NETWORKS, "steps": {}, "alone": {}}
    for model in MODELS:
        rounds = {way: [] for way in WAYS}
        for _ in range(ROUNDS):
            for way, (ranks, threads) in WAYS.items():
                rounds[way].append(run(ranks, threads, way, model, ROWS, ranks))
                print(model, way, rounds[way][-1], flush=True)
        found["steps"][model] = rounds
        found["alone"][model] = {rows: run(1, 1, "one process", model, rows, 1)["seconds"] for rows in ALONE}
    found["messages"] = run(2, 1, "messages")
    found["fit"] = fit({int(size): seconds for size, seconds in found["messages"].items()})
    return found


def fit(messages):
    """Latency and seconds per byte, with the smallest sum of squared relative errors."""
    sizes, times = np.array(list(messages)), np.array(list(messages.values()))
    (latency, rate), *_ = np.linalg.lstsq(np.stack([1 / times, sizes / times], 1), np.ones(len(times)), rcond=None)
    return {"latency": float(latency), "per_byte": float(rate)}


# --------------------------------------------------------------------------------------------------------- prediction


def of_rows(alone, rows):
    """Seconds of one rank for so many rows: between measured ones along a line, beyond them in proportion."""
    known = sorted((int(size), seconds) for size, seconds in alone.items())
    if rows < known[0][0]:
        return known[0][1]  # as many kernels run, on less
    return float(np.interp(rows, *zip(*known))) if rows <= known[-1][0] else known[-1][1] * rows / known[-1][0]


def predicted(found, model, ranks, rows, latency, per_byte):
    """Seconds of a step, without any overlap of messages and computing."""
    one = found["steps"][model]["two ranks"][0]
    levels = ranks.bit_length() - 1
    small = one["bytes"] - one["gradients"]  # of two ranks: all but the gradients, in each level
    gradients = 2 * one["gradients"] * (ranks - 1) / ranks
    return of_rows(found["alone"][model], rows) + levels * (one["messages"] * latency + small * per_byte) + gradients * per_byte


def efficiencies(found, model, kind):
    """By network: of each number of ranks, the speed relative to that many times one rank's."""
    curves = {}
    for network, (latency, per_byte) in NETWORKS.items():
        rows = [ROWS if kind == "weak" else ROWS * 8 // ranks for ranks in RANKS]
        ideal = [of_rows(found["alone"][model], ROWS if kind == "weak" else ROWS * 8) / (1 if kind == "weak" else ranks) for ranks in RANKS]
        taken = [predicted(found, model, ranks, max(1, count), latency, per_byte) for ranks, count in zip(RANKS, rows)]
        curves[network] = [one / other for one, other in zip(ideal, taken)]
    return curves


def draw(found, path):
    from nbnet.demos import drawing

    figure = drawing.figure(10.4, 3.9)
    for axes, (kind, title) in zip(
        figure.subplots(1, 2), {"weak": f"{ROWS} rows on each rank", "strong": f"{8 * ROWS:,} rows on all ranks together"}.items()
    ):
        for model, form in zip(MODELS, ("-", "--")):
            for (network, values), colour in zip(efficiencies(found, model, kind).items(), ("#e07b1a", "#1f6f9f")):
                axes.plot(RANKS, [100 * value for value in values], form, color=colour, label=f"{model}, {network}")
        axes.set_xscale("log", base=2)
        axes.set_xticks(RANKS, [f"{ranks}" for ranks in RANKS])
        axes.set_ylim(0, 105)
        axes.set_xlabel("ranks")
        axes.set_ylabel("efficiency, %")
        axes.set_title(f"{kind} scaling, predicted: {title}", loc="left", fontsize=10)
    figure.axes[0].legend(fontsize=8, loc="lower left")
    drawing.save(figure, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/distributed"))
    parser.add_argument("--worker", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return
    found = measure()
    found["predicted"] = {model: {kind: efficiencies(found, model, kind) for kind in ("weak", "strong")} for model in MODELS}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "distributed.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(found, options.out / "distributed.png")
    for model in MODELS:
        medians = {way: statistics.median(one["seconds"] for one in found["steps"][model][way]) for way in WAYS}
        print(model, {way: f"{ROWS / seconds:,.0f} images/s" for way, seconds in medians.items()})


if __name__ == "__main__":
    main()
