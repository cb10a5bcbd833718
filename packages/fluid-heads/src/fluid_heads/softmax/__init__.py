"""Softmax over the ids of a codebook."""
