"""What a run leaves: its directory, its ledger, its failures."""
