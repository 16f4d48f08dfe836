"""The subcommands: one module each with ``HELP`` and ``run(arguments) -> int``, imported when called."""
