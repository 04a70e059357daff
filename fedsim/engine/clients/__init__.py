"""The clients of a federation: those of a site, and all of them as a sequence."""
