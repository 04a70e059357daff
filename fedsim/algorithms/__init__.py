"""Federated methods, one file per method."""
