"""Sweeps over a grid of reducers and searches for good settings: Optuna studies that any number of workers share."""
