"""Telling trackers about a run, each in a separate process that reads the ledger."""
