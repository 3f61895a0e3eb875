"""The toolkit of the CUDA kernels: device memory, launches, layouts."""
