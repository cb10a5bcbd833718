"""Training tokenizers: those that are fitted to images, and those that are models themselves."""
