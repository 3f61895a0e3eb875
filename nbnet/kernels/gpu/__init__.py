"""The toolkit of CUDA kernels: compilation and caching, device memory, launches, layouts, matrix products, reductions."""
