"""Numbers computed from runs; draws nothing."""
