"""Changing pictures instead of drawing them anew: what is given becomes known tokens, and only the others are drawn."""
