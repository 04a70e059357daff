"""The simulation engine: clients, the processes that host them, rounds, aggregation, ledger and checkpoints."""
