"""Warnings of texts that were cut: one for each, or a few lines in all where captions are read by the thousand."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_logger = logging.getLogger(__name__)


class Truncations:
    """How many texts were encoded within a block, and how many of them were cut."""

    def __init__(self, every: int) -> None:
        self.num_texts = 0
        self.num_cut = 0
        self._every = every

    def add(self, message: str) -> None:
        """Count a text that was cut. The first one is told in full, and every so many how many they are by now."""
        self.num_cut += 1
        if self.num_cut == 1:
            _logger.warning("%s Further texts that are cut are counted.", message)
        elif self.num_cut % self._every == 0:
            _logger.warning("Truncated %d of %d texts so far. %s", self.num_cut, self.num_texts, message)


_counting: ContextVar[Truncations | None] = ContextVar("counting", default=None)


@contextmanager
def truncations_summed_up(*, every: int = 1000) -> Iterator[Truncations]:
    """Within the block, count texts that are cut in place of a warning for each.

    The first is told in full, every `every`-th with the count by then, and at the end how many they were.
    """
    truncations = Truncations(every)
    token = _counting.set(truncations)
    try:
        yield truncations
    finally:
        _counting.reset(token)
        if truncations.num_cut > 1:
            _logger.warning("Truncated %d of %d texts in all.", truncations.num_cut, truncations.num_texts)


def count_texts(num_texts: int) -> None:
    """Tell that so many texts are about to be encoded."""
    if truncations := _counting.get():
        truncations.num_texts += num_texts


def warn_truncated(message: str) -> None:
    """Tell that a text was cut: at once, or within `truncations_summed_up` as that says."""
    if truncations := _counting.get():
        truncations.add(message)
    else:
        _logger.warning("%s", message)
