"""Sixteen threads train a model each at the same time: the same bits as one after the other."""

from concurrent.futures import ThreadPoolExecutor

from attacks.bits import result, training

THREADS = 16


def attack(rng, folder):
    with ThreadPoolExecutor(THREADS) as pool:
        while True:
            seeds = [int(seed) for seed in rng.integers(1 << 30, size=THREADS)]
            backends = [str(rng.choice(["serial", "parallel"])) for _ in seeds]
            together = list(pool.map(result, [training] * THREADS, seeds, ["float32"] * THREADS, backends))
            for seed, backend, found in zip(seeds, backends, together):
                alone = result(training, seed, "float32", backend)
                yield None if found == alone else f"training, seed {seed}, {backend}: {alone} alone, {found} next to 15 others"
