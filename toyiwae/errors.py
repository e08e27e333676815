"""The errors toyiwae raises. Each message says what is wrong, where, and what would be right."""


class ToyiwaeError(Exception):
    """Base of all errors that are a message to the user; the command line prints them in one line."""


class InputError(ToyiwaeError, ValueError):
    """Bad input: names the field, the value, and what would be right."""


class MissingMomentError(ToyiwaeError, ArithmeticError):
    """A moment of the importance weight that the answer needs does not exist; the message names it."""


class PrecisionError(ToyiwaeError, ArithmeticError):
    """A value cannot be computed to the promised accuracy; the message names the range at fault."""


class DivergenceError(ToyiwaeError, ArithmeticError):
    """A training's bound or parameters are not finite; names the member, the step and the last good checkpoint."""


class ToldElsewhereError(ToyiwaeError):
    """Another process of the same run cannot go on and says why; the message repeats it, the command line does not."""


class MissingExtraError(ToyiwaeError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class CostWarning(UserWarning):
    """What was asked for takes long; the message says about how long, and what would shorten it."""


class InputWarning(UserWarning):
    """An input was mended before use; the message names the field and what was done to it."""
