"""Calls of the user's code."""
