"""Caches of encoded images: what a frozen tokenizer and a frozen text encoder return, computed once and kept on disk.

A cache is a folder: `manifest.json` says what it holds and how it was made, `train-00000.safetensors` and its like are
the shards, and `tokenizer.safetensors` is what the tokenizer had learned from the images.
"""
