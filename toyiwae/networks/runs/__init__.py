"""Runs: settings, the folder with checkpoints and metrics, and the loop that trains."""
