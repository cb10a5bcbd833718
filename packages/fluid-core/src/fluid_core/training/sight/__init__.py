"""What a person sees of a run: progress, metrics, speed, memory."""
