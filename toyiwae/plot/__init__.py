"""Figures: how an estimator looks in every one of them, and labels at the curves."""

from toyiwae.plot.curves import label_ends as label_ends
from toyiwae.plot.looks import COLORS as COLORS
from toyiwae.plot.looks import DOTTED as DOTTED
from toyiwae.plot.looks import kind as kind
from toyiwae.plot.looks import label as label
from toyiwae.plot.looks import look as look
from toyiwae.plot.looks import looks as looks
from toyiwae.plot.looks import short as short
