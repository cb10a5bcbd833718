"""Studies: variants by sizes by seeds from one file, trained, measured, and reported beside the paper's own."""
