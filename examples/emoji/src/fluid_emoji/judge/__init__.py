"""The judge of composed scenes: a small detector of emoji, and verdicts on what it finds."""
