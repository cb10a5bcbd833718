"""What plugin authors need to test their components: install with `pip install fluid-core[testing]`."""
