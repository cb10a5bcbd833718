"""GenEval (arXiv 2310.11513): pictures for its prompts in its folder layout, and its judge without mmdetection."""
