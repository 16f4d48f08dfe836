"""The parser of subcommands that read their options without torch."""

import argparse
import sys
from typing import NoReturn


class UsageParser(argparse.ArgumentParser):
    """A parser that ends as jsonargparse's do: usage, one line of error, and the exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Print usage and error, and leave."""
        self.print_usage(sys.stderr)
        self.exit(2, f"error: {message}\n")
