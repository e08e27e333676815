"""What the checks compare with."""
