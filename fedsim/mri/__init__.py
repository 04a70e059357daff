"""MR physics: arrays in, arrays out; no files, no federation."""
