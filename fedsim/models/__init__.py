"""Reconstruction networks: an encoder that may be shared and a decoder that may stay private."""
