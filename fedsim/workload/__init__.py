"""The workload: its schema, reading a file, and what is wrong with it."""
