"""The public names of toyiwae and the modules they live in: the only list of them."""

from toyiwae import conformance as conformance
from toyiwae import estimators as estimators
from toyiwae.conformance.api import check as check
from toyiwae.conformance.record import CheckReport as CheckReport
from toyiwae.discrete import DiscreteProblem as DiscreteProblem
from toyiwae.errors import CostWarning as CostWarning
from toyiwae.errors import InputError as InputError
from toyiwae.errors import MissingMomentError as MissingMomentError
from toyiwae.errors import PrecisionError as PrecisionError
from toyiwae.errors import ToyiwaeError as ToyiwaeError
from toyiwae.estimators.registry import estimator as estimator
from toyiwae.forms import Bound as Bound
from toyiwae.forms import Coefficients as Coefficients
from toyiwae.forms import Form as Form
from toyiwae.makers import digits_problem as digits_problem
from toyiwae.makers import paper_problem as paper_problem
from toyiwae.montecarlo import EstimateResult as EstimateResult
from toyiwae.montecarlo import estimate as estimate
from toyiwae.oracle import series as series
from toyiwae.oracle import symbolic as symbolic
from toyiwae.oracle.closed import ClosedForms as ClosedForms
from toyiwae.oracle.fit import optimal_proposals as optimal_proposals
from toyiwae.oracle.quadrature import QuadratureProblem as QuadratureProblem
from toyiwae.problem import Data as Data
from toyiwae.problem import Model as Model
from toyiwae.problem import Problem as Problem
from toyiwae.problem import Proposal as Proposal
from toyiwae.problem_file import dump as dump
from toyiwae.problem_file import load as load
from toyiwae.truth import ExactResult as ExactResult
from toyiwae.truth import exact as exact

__all__: list[str]
__version__: str
