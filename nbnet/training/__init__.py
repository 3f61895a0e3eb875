"""The training loop and what belongs to it: checkpoints, callbacks, averages, gradient checks."""
