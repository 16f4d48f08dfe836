"""Checkpoint files: settings, key maps of every layout, and reading them."""
