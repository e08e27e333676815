"""Gradient estimators: one file per family, pure functions of the log-weights in one registry."""

# The order of registration is the order of every table.
# isort: off
from toyiwae.estimators import elbo as elbo
from toyiwae.estimators import iwae as iwae
from toyiwae.estimators import ciwae as ciwae
from toyiwae.estimators import piwae as piwae
from toyiwae.estimators import path as path
from toyiwae.estimators import score as score
from toyiwae.estimators import rws as rws
from toyiwae.estimators import vr_iwae as vr_iwae
from toyiwae.estimators import ovis as ovis
from toyiwae.estimators import jackknife as jackknife
from toyiwae.estimators import u_statistic as u_statistic
# isort: on

from toyiwae.estimators.claims import Target, both, elbo_bound, iwae_bound
from toyiwae.estimators.record import Estimator
from toyiwae.estimators.registry import all, estimator, get, load_user, names, select
from toyiwae.forms import Bound, Coefficients, Form

__all__ = [
    "Bound",
    "Coefficients",
    "Estimator",
    "Form",
    "Target",
    "all",
    "both",
    "elbo_bound",
    "estimator",
    "get",
    "iwae_bound",
    "load_user",
    "names",
    "select",
]
