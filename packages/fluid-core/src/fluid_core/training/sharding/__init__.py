"""Models divided among processes: laid out, filled in, trained and saved without any process holding all of them."""
