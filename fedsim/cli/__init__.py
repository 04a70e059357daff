"""The command line, one file a group of commands."""

from fedsim.cli.app import main

__all__ = ["main"]
