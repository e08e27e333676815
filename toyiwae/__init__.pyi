"""The public names of toyiwae and the modules they live in: the only list of them."""

from toyiwae import conformance as conformance
from toyiwae import estimators as estimators
from toyiwae import plot as plot
from toyiwae.conformance.api import check as check
from toyiwae.conformance.report import CheckReport as CheckReport
from toyiwae.errors import CostWarning as CostWarning
from toyiwae.errors import DivergenceError as DivergenceError
from toyiwae.errors import InputError as InputError
from toyiwae.errors import InputWarning as InputWarning
from toyiwae.errors import MissingMomentError as MissingMomentError
from toyiwae.errors import PrecisionError as PrecisionError
from toyiwae.errors import ToyiwaeError as ToyiwaeError
from toyiwae.estimators.registry import estimator as estimator
from toyiwae.forms import Bound as Bound
from toyiwae.forms import Coefficients as Coefficients
from toyiwae.forms import Form as Form
from toyiwae.montecarlo import EstimateResult as EstimateResult
from toyiwae.montecarlo import estimate as estimate
from toyiwae.networks.evaluation.evaluate import evaluate as evaluate
from toyiwae.networks.evaluation.record import Evaluation as Evaluation
from toyiwae.networks.runs.run import Run as Run
from toyiwae.networks.runs.run import load_run as load_run
from toyiwae.networks.runs.train import train as train
from toyiwae.oracle.closed_form.renyi import ClosedForms as ClosedForms
from toyiwae.oracle.series import expansions as series  # noqa: F401 (public under this name)
from toyiwae.oracle.series import symbolic as symbolic
from toyiwae.problems.binary import DiscreteProblem as DiscreteProblem
from toyiwae.problems.density import QuadratureProblem as QuadratureProblem
from toyiwae.problems.linear_gaussian import Data as Data
from toyiwae.problems.linear_gaussian import Model as Model
from toyiwae.problems.linear_gaussian import Problem as Problem
from toyiwae.problems.mnist import mnist_problem as mnist_problem
from toyiwae.problems.proposal import Proposal as Proposal
from toyiwae.problems.ready import digits_problem as digits_problem
from toyiwae.problems.ready import paper_problem as paper_problem
from toyiwae.problems.toml import dump as dump
from toyiwae.problems.toml import load as load
from toyiwae.truth import ExactResult as ExactResult
from toyiwae.truth import exact as exact
from toyiwae.truth.comparison import compare as compare
from toyiwae.truth.optimal_proposal import optimal_proposals as optimal_proposals
from toyiwae.truth.rankings import Comparison as Comparison

__all__: list[str]
__version__: str
