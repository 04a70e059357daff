"""Numbers from runs; nothing here draws."""
