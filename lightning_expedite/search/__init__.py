"""Sweeps: ``test`` and ``benchmark`` for every point of a grid of reducers and settings.

The process that a user starts stays light: no module here but `worker` and `resolving` needs torch. They run in a
second process, which imports it once for all points.
"""
