"""Evaluation: validation loss, and scores of pictures judged against their prompts."""
