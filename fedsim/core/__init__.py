"""Errors, files, seeds, text, YAML: needs nothing else of fedsim."""
