"""The workload file: its schema, and reading and checking it."""
