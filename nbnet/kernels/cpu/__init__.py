"""The toolkit of CPU kernels: compilation and caching, threads, vectors, matrix products, reductions."""
