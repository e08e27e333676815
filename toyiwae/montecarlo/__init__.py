"""Monte Carlo with torch: replicates of bounds and gradients, and their moments beside the exact ones."""

from toyiwae.extras import import_extra

import_extra("torch", extra="torch", purpose="sampling")

from toyiwae.montecarlo.api import estimate, gradients_of, replicates  # noqa: E402
from toyiwae.montecarlo.results import EstimateCell, EstimateResult, GradientEstimate  # noqa: E402
from toyiwae.montecarlo.sampler import Chunk  # noqa: E402

__all__ = [
    "estimate",
    "replicates",
    "gradients_of",
    "EstimateResult",
    "EstimateCell",
    "GradientEstimate",
    "Chunk",
]
