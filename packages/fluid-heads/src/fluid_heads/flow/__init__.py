"""Per-token rectified flow over continuous vectors (Liu et al., arXiv 2209.03003; Esser et al., arXiv 2403.03206)."""
