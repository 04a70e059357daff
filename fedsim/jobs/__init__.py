"""Sending workloads and studies to a cluster."""
