"""The same numbers as balls: what bounds discretisation, truncation and rounding is in the radius."""
