"""What lives where clients live."""
