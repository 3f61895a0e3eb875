"""What runs kernels: backends, memory pools, replay of recorded passes, and kernels compiled ahead."""
