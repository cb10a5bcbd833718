"""Two data sets of emoji for Fluid: single pictures, and composed scenes with exact ground truth.

`fluid_emoji.plugin` declares them, `fluid_emoji.fetch` brings the pictures, `fluid_emoji.preview` shows some of them.
"""
