"""The same numbers to any number of digits."""
