"""The subcommands: one module each with ``run(arguments) -> int``, imported when called."""
