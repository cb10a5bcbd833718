"""The `emoji-scenes` data set: scenes composed of everyday emoji, with exact ground truth."""
