"""Trains and evaluates clients, in whichever process they live."""
