"""Machines, and which client is placed where."""
