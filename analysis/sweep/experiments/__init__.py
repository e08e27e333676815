"""Experiments ready to be swept: a file NAME.py each, which defines `EXPERIMENT`; one with an underscore is a part."""
