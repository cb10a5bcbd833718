"""What surrounds the steps of a run: its folder, its data, its model, its clock, and the signals that end it."""
