"""The simulation: clients, rounds, aggregation, failures, checkpoints."""
