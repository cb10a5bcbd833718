"""The transformer that turns visible tokens and text into one hidden vector per position (paper, section 3)."""
