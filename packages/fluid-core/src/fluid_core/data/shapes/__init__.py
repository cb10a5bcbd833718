"""Scenes of coloured shapes: drawn from facts, put into words, and judged.

The way through: `composition` chooses facts and lays out a `scene`, `captions` says them, `drawing` paints the
scene; `detection` finds the objects in a picture, `outline_matching` names their shapes, and `judge` compares them
with the facts.
"""
