"""The commands of the `fluid` program, one module each; all are cheap to import."""
