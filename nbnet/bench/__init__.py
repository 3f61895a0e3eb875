"""What runs behind `nbnet bench`: contenders in processes of their own, measured in turn, and what is told of it.

The workloads and peers themselves are in `benchmarks/nbnet_benchmarks`, which imports nothing of this.
"""
