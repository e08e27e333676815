"""What all tests share: the annotations of the package are checked at run time (jaxtyping and beartype)."""

import typing

import beartype
import hypothesis
import jaxtyping
import numpy as np
from beartype.roar import BeartypeDecorHintPep673Exception

NUMBERS = {int: int | np.integer, float: float | int | np.floating | np.integer}
CHECKED = beartype.BeartypeConf(hint_overrides=beartype.FrozenDict(NUMBERS))


def checked(function: typing.Any) -> typing.Any:
    """`beartype` for a function whose annotations can be resolved.

    Names that are imported for type checkers only cannot be, nor can `Self` in a method; those functions stay
    as they are, and pyright alone looks at them.
    """
    try:
        typing.get_type_hints(function)
        return beartype.beartype(conf=CHECKED)(function)
    except (NameError, BeartypeDecorHintPep673Exception):
        return function


# Before a test imports toyiwae, and under pytest only: such checks and `torch.compile` do not go together.
jaxtyping.install_import_hook("toyiwae", f"{__name__}.checked")

# The same examples on every run, and no deadline on a busy machine.
hypothesis.settings.register_profile("house", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("house")
