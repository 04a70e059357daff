"""Machines, and who goes where on them."""
