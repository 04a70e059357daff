"""What a run writes: its directory, ledger and failures."""
