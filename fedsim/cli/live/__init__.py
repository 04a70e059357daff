"""The live page of a run, a study or a folder of them, served on loopback from their folders alone."""
