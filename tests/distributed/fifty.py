"""Fifty steps; run by mpiexec, the first rank prints the digest."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import cases


def digest(comm):
    t = cases.trainer(comm)
    (x, y), _ = cases.data()
    for step in range(50):
        rows = [(37 * step + i) % len(x) for i in range(24)]
        t.train_batch(x[rows], y[rows])
    return cases.digest(t)


if __name__ == "__main__":
    from mpi4py import MPI

    found = digest(MPI.COMM_WORLD)
    if MPI.COMM_WORLD.rank == 0:
        print(found)
