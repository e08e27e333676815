"""The registry: names, parameters, refusals, and a user's own estimators."""

import math
import re

import pytest

from tests.members import every_family
from toyiwae import estimators
from toyiwae.errors import InputError
from toyiwae.estimators import Target, estimator, get
from toyiwae.forms import Coefficients


def test_names_are_found_and_spelled_as_asked():
    for name in estimators.names():
        assert get(name).name == name == get(name).family
    assert get("ciwae:0.50").name == "ciwae:0.50"
    assert get("ciwae:0.50").parameter == 0.5
    assert get("jackknife:2.0").parameter == 2
    assert get(get("elbo")).name == "elbo"
    assert [found.name for found in estimators.select("elbo, ciwae:0.5,elbo")] == ["elbo", "ciwae:0.5"]


@every_family
def test_every_family_introduces_itself(member):
    assert member.summary.endswith(".")
    assert member.cite
    documented = member.function.func.__doc__ if hasattr(member.function, "func") else member.function.__doc__
    assert set(member.cite) <= set(re.findall(r"\w+", documented.split("References:")[1]))


@every_family
def test_bad_parameters_are_refused(member):
    low, high = member.between
    if member.parameter_name is None:
        bad = {":2": "takes no parameter", ":": "takes no parameter"}
    else:
        bad = {f":{text}": f"{member.parameter_name} is {text}" for text in ("nan", "inf")}
        bad |= {":": f"{member.parameter_name} is ''", ":many": f"{member.parameter_name} is 'many'"}
        bad |= {f":{low - 1}": f"of at least {low:g}"} if math.isfinite(low) else {}
        bad |= {f":{high + 1}": f"at most {high:g}"} if math.isfinite(high) else {}
        bad |= {":1.5": "a whole number"} if isinstance(member.parameter, int) else {}
    for text, message in bad.items():
        with pytest.raises(InputError, match=re.escape(message)) as caught:
            get(member.family + text)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("iwaee", "did you mean iwae?"),
        ("IWAE", "did you mean iwae?"),
        ("DReG", "did you mean dreg?"),
        ("miwae", "M > 1"),
        ("miwae:3", "M > 1"),
        ("nothing alike", "known are elbo,"),
        ("", "expected a name"),
        ("nowhere.py:mine", "no file"),
    ],
)
def test_unknown_names_are_refused(spec, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        get(spec)
    assert "\n" not in str(caught.value)


def test_select_checks_the_number_of_particles():
    with pytest.raises(InputError, match="K is 1: vimco_arithmetic needs K of at least 2"):
        estimators.select("elbo,vimco_arithmetic", (1, 4))
    with pytest.raises(InputError, match="empty"):
        estimators.select(())


HEADER = "from toyiwae.estimators import Target, estimator\n@estimator(target=Target(None, None))\n"
USERS = '''
from toyiwae.estimators import Target, both, estimator, iwae_bound
from toyiwae.forms import Coefficients, Form
from toyiwae.weights import normalise

@estimator(target=both(iwae_bound), form=Form({1: 1}, {2: 1}))
def dreg(log_w):
    """Mine."""
    return Coefficients(normalise(log_w), normalise(log_w) ** 2, 0 * log_w)

@estimator(target=lambda tilt: Target(None, None), between=(0, 2))
def tilted(log_w, tilt=1.0):
    """Mine, tilted."""
    shares = normalise(tilt * log_w)
    return Coefficients(shares, shares, -shares)
'''


def test_a_users_file_is_read_and_leaves_the_registry_alone(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(USERS, encoding="utf-8")
    before = estimators.names()
    assert get(f"{file}:dreg").summary == "Mine."
    assert get(f"{file}:tilted").parameter == 1.0
    assert get(f"{file}:tilted:0.5").parameter == 0.5
    assert get(f"{file}:tilted:0.5").name == f"{file}:tilted:0.5"
    assert estimators.names() == before
    assert get("dreg").summary != "Mine."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (USERS, "defines no estimator 'mine': did you mean"),
        ("x = 1", "decorate a function with @toyiwae.estimator"),
        ("1 / 0", "ZeroDivisionError"),
        ("def", "SyntaxError"),
        (HEADER + "def mine(x): pass", "docstring"),
        (HEADER + "def mine(x, y): pass", "parameter=default"),
    ],
)
def test_what_is_wrong_with_a_users_file_is_said(text, message, tmp_path):
    file = tmp_path / "file.py"
    file.write_text(text.replace("dreg", "mean"), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        get(f"{file}:mine")


def test_a_name_of_toyiwae_cannot_be_taken():
    with pytest.raises(InputError, match="choose another name"):

        @estimator(target=Target(None, None))
        def elbo(log_w):
            """Not the ELBO."""
            return Coefficients(log_w, log_w, log_w)
