"""Monte Carlo: replicates of bounds and gradients, and their moments beside the exact ones."""

from toyiwae.montecarlo.api import estimate, gradients_of, replicates
from toyiwae.montecarlo.chunks import Chunk
from toyiwae.montecarlo.results import EstimateCell, EstimateResult, GradientEstimate

__all__ = [
    "estimate",
    "replicates",
    "gradients_of",
    "EstimateResult",
    "EstimateCell",
    "GradientEstimate",
    "Chunk",
]
