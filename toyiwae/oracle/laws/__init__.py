"""The distribution of the importance weight: moments, exponentially tilted laws, Laplace transforms."""
