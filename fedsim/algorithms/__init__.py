"""Federated methods, one short file each: what is shared, what a client does, what the server does with the sum."""
