"""The figures of the study on MNIST: the linear decoder, training curves, results, ratios, pictures."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from analysis import style
from analysis.mnist.linear import Linear
from analysis.mnist.plans import PARTICLES
from analysis.mnist.published import METHOD
from analysis.mnist.results import Method, Results, beta_of, splits_of
from toyiwae import estimators, plot


def looks(methods: list[Method]) -> dict[Method, dict[str, Any]]:
    """Colour, line and marker of every method of a figure."""
    alone = list(dict.fromkeys(name for name, groups, _ in methods if groups == 1))
    single = dict(zip(alone, plot.looks(alone), strict=True))
    return {m: single[m[0]] if m[1] == 1 else plot.look(m[0], m[1]) for m in methods}


def linear(found: Linear) -> Figure:
    """Exact gaps and sample sizes of all images at every K, and how the gaps spread over log p(x)."""
    figure, (left, middle, right) = style.panels(1, 3, aspect=1.05)
    names = [f"{k:,}" for k in found.K]
    style.violins(left, np.log10(found.gap), [style.BLUE] * len(names))
    left.set_xticks(range(len(names)), names)
    low, high = int(np.floor(np.log10(found.gap.min()))), int(np.ceil(np.log10(found.gap.max())))
    style.log_ticks(left, low, high)
    left.set(xlabel="particles $K$", ylabel=r"$\log p(x)-L_K$ (nats)")
    style.label_panel(left, "a", "Exact gap")
    style.violins(middle, found.ess[1:], [style.BLUE] * (len(names) - 1))
    middle.set_xticks(range(len(names) - 1), names[1:])
    middle.set(xlabel="particles $K$", ylabel="E[ESS] (particles)", ylim=(0, None))
    style.label_panel(middle, "b", "Sample size")
    right.plot(found.log_p, found.gap[1], ".", color=style.BLUE, markersize=1.2, alpha=0.4, rasterized=True)
    right.set(
        xlabel=r"exact $\log p(x)$ (nats)", ylabel=rf"$\log p(x)-L_{{{found.K[1]}}}$ (nats)", yscale="log"
    )
    style.label_panel(right, "c", f"At $K={found.K[1]}$")
    return figure


def training(found: Results, *, staged: bool) -> Figure:
    """Own bounds of the training batches, and the bound with 64 particles of test images; means over seeds."""
    figure, (left, right) = style.panels(1, 2, aspect=0.8)
    look, curves, tested = looks(found.main), found.curves(), found.test_curves()
    for method in found.main:
        own = _of(curves, method).groupby("epoch").bound.mean()
        smooth = own.rolling(5, min_periods=1).mean()
        every = (0.04 * found.main.index(method), 0.3)  # of the axes' diagonal
        left.plot(smooth.index, smooth, linewidth=1.0, markersize=3.6, markevery=every, **look[method])
        seen = _of(tested, method).groupby("epoch").bound.mean()
        right.plot(seen.index, seen, linewidth=1.0, markersize=3.6, **look[method])
    for axes, frame in ((left, curves), (right, tested)):
        axes.set(xlabel="epochs", xscale="log" if staged else "linear")
        if len(frame):
            late = frame[frame.epoch > (0.02 if staged else 0.12) * frame.epoch.max()].bound
            axes.set_ylim(late.min() - 1.0, late.max() + 1.0)
    left.set_ylabel("own bound (nats)")
    right.set_ylabel(f"$L_{{{PARTICLES}}}$ (nats)")
    style.label_panel(left, "a", "Training batches")
    style.label_panel(right, "b", "Test images")
    _legend(figure, look)
    return figure


def outcome(found: Results, largest_k: int) -> Figure:
    """Estimates of log p(x), divergences of the proposals, and effective sample sizes, a row for each method."""
    figure, (left, middle, right) = style.panels(1, 3, aspect=0.95, sharey=True)
    methods = [method for method in found.main if len(_of(found.together, method))]
    look = looks(methods)
    for axes, name in ((left, "log_p"), (middle, "minus_kl")):
        for place, method in enumerate(methods):
            mean, own = _of(found.methods, method).iloc[0], _of(found.members, method)
            shape = {key: value for key, value in look[method].items() if key != "linestyle"}
            if len(own) > 1:
                axes.plot(own[name], np.full(len(own), place + 0.25), ".", color=shape["color"], markersize=3)
            axes.errorbar(mean[name], place, xerr=mean[f"{name}_bar"], capsize=2, markersize=4.5, **shape)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.grid(axis="x", linewidth=0.3, color=style.GREY, alpha=0.5)
    left.set_xlabel(rf"$\log\hat p(x)$, $K={largest_k}$ (nats)")
    middle.set_xlabel(r"$-\mathrm{KL}(Q\Vert P)$ (nats)")
    sizes = [found.images(method, "ess") for method in methods]
    style.violins(right, sizes, [look[method]["color"] for method in methods], vertical=False)
    right.set(xlabel=f"ESS of {PARTICLES} particles", xlim=(0, None))
    left.set_yticks(range(len(methods)), [plot.label(*method) for method in methods])
    left.set_ylim(len(methods) - 0.4, -0.6)
    for axes, letter, title in (
        (left, "a", "Model"),
        (middle, "b", "Proposal"),
        (right, "c", "Sample sizes"),
    ):
        style.label_panel(axes, letter, title)
    return figure


def budget(found: Results, largest_k: int) -> Figure:
    """Final bounds at T = 64 against the number of groups, and against β."""
    figure, panels = style.panels(2, 2, aspect=0.68, sharex="col", sharey="row")
    together = found.together
    names = [method for method in found.names if len(_of(together, method))]
    for row, (name, text) in enumerate(
        (("log_p", rf"$\log\hat p(x)$, $K={largest_k}$"), ("bound", f"$L_{{{PARTICLES}}}$"))
    ):
        left, right = panels[row]
        for estimator, methods in splits_of(names).items():
            label = plot.short(estimator, 2)
            _errorbars(left, together, methods, [m[1] for m in methods], name, label, plot.look(estimator, 2))
        between = sorted((m for m in names if beta_of(m) is not None), key=lambda m: beta_of(m) or 0.0)
        inner = next((m for m in between if estimators.get(m[0]).parameter is not None), between[0])
        betas = [beta_of(method) for method in between]
        _errorbars(right, together, between, betas, name, plot.short(inner[0]), plot.look(inner[0]))
        left.set_ylabel(f"{text} (nats)")
        left.set_xscale("log", base=2)
        counts = [2**power for power in range(7)]
        left.set_xticks(counts, ["1\nIWAE", *map(str, counts[1:-1]), f"{PARTICLES}\nELBO"])
        right.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0\nIWAE", "0.25", "0.5", "0.75", "1\nELBO"])
    panels[0, 0].legend(fontsize="small", loc="best")
    panels[0, 1].legend(fontsize="small", loc="best")
    panels[1, 0].set_xlabel(rf"groups $M$ ($MK={PARTICLES}$)")
    panels[1, 1].set_xlabel(r"$\beta$")
    for axes, letter, title in zip(
        panels.flat,
        "abcd",
        ("Model, by groups", "Model, by β", "Bound, by groups", "Bound, by β"),
        strict=True,
    ):
        style.label_panel(axes, letter, title)
    return figure


def signal(found: Results) -> Figure:
    """Signal-to-noise ratios of the encoder's weights along the training, a panel for each layer."""
    ratios = found.mean_snr()
    layers = list(dict.fromkeys(ratios.layer))
    figure, panels = style.panels(1, len(layers), aspect=1.0, sharey=True, squeeze=False)
    look = looks(found.main)
    for place, (axes, layer) in enumerate(zip(panels[0], layers, strict=True)):
        for method in found.main:
            own = _of(ratios[ratios.layer == layer], method).sort_values("epoch")
            axes.errorbar(
                own.epoch, own.snr, own.snr * own.log_snr_se,
                linewidth=1.0, markersize=3.6, capsize=1.5, **look[method],
            )  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="epochs")
        epochs = sorted(set(ratios.epoch))
        if epochs[-1] < 100 * epochs[0]:
            axes.set_xticks(epochs, [f"{epoch:.2g}" for epoch in epochs])
            axes.xaxis.set_minor_formatter(NullFormatter())
        for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            which(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "125" else ""))
        where = {0: ", pixels", len(layers) - 1: ", latents"}.get(place, "")
        style.label_panel(axes, "abcdefgh"[place], f"Layer {place + 1}{where}")
    panels[0, 0].set_ylabel("encoder SNR")
    _legend(figure, look)
    return figure


def pictures(found: Results, shown: int = 8) -> Figure:
    """Test images with their reconstructions, and samples of the prior, of every method's first seed."""
    methods = found.main
    width = mpl.rcParams["figure.figsize"][0]
    figure = Figure(figsize=(width, 0.22 * width * len(methods) / 2 + 0.35), layout="constrained")
    panels = figure.subplots(len(methods), 2, squeeze=False)
    for row, method in zip(panels, methods, strict=True):
        stack, place = found.first(method)
        high, wide = (side + 1 for side in stack.run.images.size)
        both = stack.evaluation["reconstructions"][place][:, : 1 + shown * wide]
        drawn = stack.evaluation["samples"][place]
        columns = (drawn.shape[1] - 1) // wide
        flat = [
            drawn[1 + r * high : 1 + (r + 1) * high, 1 + c * wide : 1 + (c + 1) * wide]
            for r in range((drawn.shape[0] - 1) // high)
            for c in range(columns)
        ][: 2 * shown]
        half = len(flat) // 2
        sheet = np.vstack([np.hstack(flat[:half]), np.hstack(flat[half : 2 * half])])
        for axes, image in zip(row, (both, sheet), strict=True):
            axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        name = plot.label(*method).replace("(", "\n(", 1)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize="small")
    style.label_panel(panels[0, 0], "a", "Test images above reconstructions")
    style.label_panel(panels[0, 1], "b", "Samples of the prior")
    return figure


def _errorbars(
    axes: Any, frame: Any, methods: list[Method], x: list[Any], name: str, label: str, look: Any
) -> None:
    rows = [_of(frame, method).iloc[0] for method in methods]
    axes.errorbar(
        x, [row[name] for row in rows], [row[f"{name}_bar"] for row in rows],
        label=label, linewidth=1.0, markersize=4, capsize=2, **look,
    )  # fmt: skip


def _legend(figure: Figure, look: dict[Method, dict[str, Any]]) -> None:
    handles = [Line2D([], [], label=plot.label(*method), markersize=4, **own) for method, own in look.items()]
    columns = len(handles) if len(handles) < 6 else 3
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize="small")


def _of(frame: Any, method: Method) -> Any:
    wanted = np.logical_and.reduce([frame[key] == value for key, value in zip(METHOD, method, strict=True)])
    return frame[wanted]
