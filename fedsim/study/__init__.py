"""Studies: what they sweep over, their points and results."""
