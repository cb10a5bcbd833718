"""One step of training: from a batch to a changed weight, and what may go wrong on the way."""
