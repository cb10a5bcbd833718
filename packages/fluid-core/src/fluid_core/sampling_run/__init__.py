"""`fluid sample`: prompts become pictures in a folder, in several processes if there are, and again after a kill."""
