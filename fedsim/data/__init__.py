"""Importers, shards, splits by subject, batches of slices."""
