"""Use the kernels in NumPy code, without layers or a trainer: batch norm by hand, on three backends."""

import time

import numpy as np

import nbnet as nb

F = nb.functional
rng = np.random.default_rng(0)
x = rng.normal(3, 2, (64, 16, 16, 32)).astype(np.float32)
dy = rng.standard_normal(x.shape).astype(np.float32)
gamma, beta = np.ones(32, np.float32), np.zeros(32, np.float32)

y, saved = F.batch_norm_forward(x, gamma, beta, eps=1e-5)
dx, dgamma, dbeta = F.batch_norm_backward(dy, saved)
print(f"output mean {abs(y.mean(axis=(0, 1, 2))).max():.1e}, deviation {y.std(axis=(0, 1, 2)).mean():.4f}")

# Separate statistics: four parts of the batch, normalised as one.
parts = np.split(x, 4)
merged = F.merge_stats([F.batch_norm_stats(part) for part in parts])
together = np.concatenate([F.batch_norm_apply(part, merged, gamma, beta)[0] for part in parts])
print(f"in parts or whole: largest difference {abs(together - y).max():.1e}")

for backend in ("numpy", "serial", "parallel"):
    F.batch_norm_forward(x, gamma, beta, backend=backend)  # the first call compiles
    times = []
    for _ in range(10):
        start = time.perf_counter()
        F.batch_norm_forward(x, gamma, beta, backend=backend)
        times.append(time.perf_counter() - start)
    print(f"{backend:>8}: {1e3 * np.median(times):6.2f} ms")
