"""Private state: in memory, in files, in checkpoints."""
