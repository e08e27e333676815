"""Variances with logarithms, and covariances, in ball arithmetic, where digits were asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from toyiwae.errors import PrecisionError
from toyiwae.oracle.finite_k.score_function import refusal
from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.truth.digits import Multiprecision
from toyiwae.truth.request import Request, at_particles, has_logarithms
from toyiwae.truth.source import LogVariance, Numbers


def refined(numbers: Numbers, request: Request, finer: Multiprecision) -> Numbers:
    """The numbers, with these computed anew; what the balls do not reach keeps its float64 number, and has no text."""
    numbers = _log_variances(numbers, request, finer)
    found = dict(numbers.covariances)
    for form, part in request.covariances:
        try:
            found[form, part] = finer.covariance(form, request.parts[part], request.particles)
        except PrecisionError:
            continue
    return replace(numbers, covariances=found)


def _log_variances(numbers: Numbers, request: Request, finer: Multiprecision) -> Numbers:
    """Every variance of which a formula is known at all its K, if these are at least 2."""
    precise, logs, why = dict(numbers.precise), dict(numbers.log_variances), dict(numbers.why)
    for estimator in request.estimators:
        for parameter in request.parameters:
            form, counts = estimator.form, request.uses(estimator, parameter.name)
            if form is None or not has_logarithms(form, parameter.part) or min(counts) < 2:
                continue
            job, indices = (form, parameter.name), parameter.indices()
            found: dict[int, Any] = {}
            for k in counts:
                at_k = at_particles(form, k)
                if refusal(at_k) is None:
                    try:
                        found[k] = finer.log_variance(at_k, parameter.name, indices, k)
                    except PrecisionError as error:
                        why[(*job, "var")] = str(error)
            if len(found) < len(counts):
                continue
            text = np.zeros((len(request.particles), *parameter.shape), dtype=object)
            for k, (values, errors) in found.items():
                value, error = np.zeros(parameter.shape), np.zeros(parameter.shape)
                for index, ball, radius in zip(indices, values, errors, strict=True):
                    text[(request.particles.index(k), *index)] = ball
                    value[index], error[index] = float(ball), radius + EPS * abs(float(ball))
                key = (at_particles(form, k), parameter.name), k
                logs[key] = replace(logs.get(key, LogVariance(None)), var=Bounded(value, error), reason=None)
            precise[job] = {**precise.get(job, {}), "var": text}
    return replace(numbers, precise=precise, log_variances=logs, why=why)
