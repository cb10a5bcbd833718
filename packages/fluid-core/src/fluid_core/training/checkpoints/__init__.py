"""Checkpoints of a run: what continues it as if nothing had happened, whole or in parts."""
