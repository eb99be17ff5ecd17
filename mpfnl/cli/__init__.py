"""The command line: `mpfnl COMMAND`."""

from mpfnl.cli.main import main

__all__ = ["main"]
