"""The toolkit of the CPU kernels: how they are compiled, the threads they run on, vectors, matrix products."""
