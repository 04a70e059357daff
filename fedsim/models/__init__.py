"""Reconstruction networks: encoder and decoder."""
