"""Figures: how an estimator looks in every one of them, labels at the curves, and those of `exact` and `compare`."""

from toyiwae.plot.comparison_figure import comparison_figure as comparison_figure
from toyiwae.plot.curves import label_ends as label_ends
from toyiwae.plot.exact_figure import figure as figure
from toyiwae.plot.looks import COLORS as COLORS
from toyiwae.plot.looks import DOTTED as DOTTED
from toyiwae.plot.looks import kind as kind
from toyiwae.plot.looks import label as label
from toyiwae.plot.looks import look as look
from toyiwae.plot.looks import looks as looks
from toyiwae.plot.looks import parameter as parameter
from toyiwae.plot.looks import short as short
from toyiwae.plot.saving import check_file as check_file
from toyiwae.plot.saving import save as save
