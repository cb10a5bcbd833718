"""What a training will take, worked out from its configuration before anything is built, loaded or downloaded."""
