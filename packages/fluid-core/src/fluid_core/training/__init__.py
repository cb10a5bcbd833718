"""Training: the loop, the optimizer, the moving average of weights, and checkpoints."""
