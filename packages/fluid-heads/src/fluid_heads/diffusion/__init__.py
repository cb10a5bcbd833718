"""Per-token diffusion over continuous vectors (paper, section 3; MAR, arXiv 2406.11838)."""
