"""The command line, one file per group of commands."""

from fedsim.cli.app import main

__all__ = ["main"]
