"""Data-parallel training over MPI: the same bits on any number of ranks.

    slicing    a batch is cut into slices; what a rank has of it, and sums over slices by one binary tree
    lockstep   the slices of a rank side by side: a twin of the model for each
    walk       one pass: steps whose rows do not depend on each other run on all slices together
    blocks     how the rows of a rank are held meanwhile
    norm       batch normalisation by the statistics of all slices
    buckets    the gradients, added while backward continues
    ranks      messages between ranks: the only module that knows MPI
    data       one copy of a data set on each node
    predict    prediction, split over ranks
    watcher    a small process that names a rank that was killed

`nbnet.Trainer(..., comm=MPI.COMM_WORLD)` and `nbnet train --mpi` use it; `Trainer(slices=8)` is the same computation in one process.
"""

from nbnet.distributed.data import shared
from nbnet.distributed.predict import predict
from nbnet.distributed.ranks import Ranks, share_processors, speaking, world
from nbnet.distributed.slicing import Slicing

__all__ = ["Ranks", "Slicing", "predict", "share_processors", "shared", "speaking", "world"]
