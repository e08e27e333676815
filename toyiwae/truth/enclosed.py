"""Variances with logarithms, and covariances, in ball arithmetic, where digits were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from flint import arb

from toyiwae.errors import PrecisionError
from toyiwae.oracle.enclosure.enclose import EnclosedMoments
from toyiwae.oracle.enclosure.precision import centred, nearest, rounded
from toyiwae.oracle.finite_k.score_function import refusal
from toyiwae.oracle.laws.bounded import Bounded
from toyiwae.truth.derived import evidence_key
from toyiwae.truth.digits import Multiprecision
from toyiwae.truth.request import Job, Request, at_particles, has_logarithms, reference, targets
from toyiwae.truth.source import LogVariance, Numbers


def wanted(request: Request) -> dict[Job, tuple[Sequence[tuple[int, ...]], tuple[int, ...]]]:
    """Job -> coordinates and columns of gradients: of every estimator, and of L_K where a bias is that against it."""
    found: dict[Job, set[int]] = {}
    for estimator, parameter in product(request.estimators, request.parameters):
        if estimator.form is not None:
            asked = found.setdefault((estimator.form, parameter.name), set())
            asked.update(request.uses(estimator, parameter.name))
            if any(targets(estimator, *cell)[parameter.part] is None for cell in request.cells):
                found.setdefault((reference(1.0), parameter.name), set()).update(request.counts)
    indices = {parameter.name: parameter.indices() for parameter in request.parameters}
    places = {job: sorted(map(request.particles.index, counts)) for job, counts in found.items()}
    return {job: (indices[job[1]], tuple(columns)) for job, columns in places.items()}


def placed(
    found: EnclosedMoments, at: tuple, shape: tuple[int, ...], names: Sequence[str]
) -> dict[str, np.ndarray]:
    """By name the balls `[nK, *shape]`, 0 where they were not asked for, and the limit's `[*shape]`."""
    balls = {name: np.full(shape, arb(0), dtype=object) for name in names}
    for name in names:
        balls[name][at] = centred(getattr(found, name))[0]
    balls["limit"] = np.full(shape[1:], arb(0), dtype=object)
    balls["limit"][tuple(np.array(found.coordinates).T)] = centred(found.limit)[0]
    return balls


def refined(numbers: Numbers, request: Request, finer: Multiprecision) -> Numbers:
    """The numbers, with these computed anew; what the balls do not reach keeps its float64 number, and has no text."""
    numbers = _log_variances(numbers, request, finer)
    found, precise = dict(numbers.covariances), dict(numbers.precise)
    for form, part in request.covariances:
        try:
            balls = finer.covariance(form, request.parts[part], request.particles)
        except PrecisionError:
            continue
        found[form, part], precise["cov", form, part] = rounded(balls), balls
    precise |= {evidence_key(one.name): finer.evidence_gradient(one) for one in request.parameters}
    return replace(numbers, covariances=found, precise=precise)


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
            for k, values in found.items():
                var, at = Bounded.zeros(parameter.shape), tuple(np.array(indices).T)
                text[(request.particles.index(k), *at)] = centred(values)[0]
                right = nearest(values)
                var.value[at], var.error[at] = right.value, right.error
                key = (at_particles(form, k), parameter.name), k
                logs[key] = replace(logs.get(key, LogVariance(None)), var=var, reason=None)
            precise[job] = {**precise.get(job, {}), "var": text}
    return replace(numbers, precise=precise, log_variances=logs, why=why)
