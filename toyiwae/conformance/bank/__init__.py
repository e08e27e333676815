"""The test problems."""
