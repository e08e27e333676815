"""Studies of importance-weighted bounds: each asks one question, answers it exactly, and states a verdict.

Used from a clone: `python -m analysis list`, `python -m analysis run NAME`, `python -m analysis report`.
"""
