"""The exact answers: evidence, posterior, bounds, and every estimator's mean, variance, SNR, bias and RMSE."""

from toyiwae.truth.api import exact
from toyiwae.truth.request import pooling
from toyiwae.truth.results import Cell, ExactResult, GradientTruth, Moments

__all__ = ["Cell", "ExactResult", "GradientTruth", "Moments", "exact", "pooling"]
