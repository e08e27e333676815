"""`toyiwae train`, `toyiwae evaluate` and `toyiwae data fetch`: they need the extra `networks`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import toyiwae
from toyiwae.cli import console
from toyiwae.extras import import_extra

if TYPE_CHECKING:
    from rich.console import Console

data = typer.Typer(
    help="Data sets for `toyiwae train`.", context_settings={"help_option_names": ["-h", "--help"]}
)


def train(
    settings: Annotated[
        Path, typer.Argument(metavar="SETTINGS.toml", help="settings file", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="the run's folder", show_default=False)],
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="TABLE.KEY=VALUE", help="a setting in place of the file's; repeatable"),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="where the IDX files of the images lie")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on from DIR's latest checkpoint, if there is one")
    ] = False,
    minutes: Annotated[
        float | None, typer.Option("--minutes", metavar="N", help="stop after so long, to be resumed")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="strict JSON instead of a table")] = False,
) -> str:
    """Train a stack of models, one for each estimator, seed and learning rate."""
    from toyiwae import records

    import_extra("torch", extra="networks", purpose="toyiwae train")
    import_extra("pydantic", extra="networks", purpose="toyiwae train")
    from toyiwae.networks.runs import ranks

    run = toyiwae.train(
        settings,
        out,
        resume=resume,
        assignments=assignments or (),
        data_dir=data_dir,
        minutes=minutes,
        note=console.note,
        spread=ranks.started(),
    )
    if not ranks.is_first():
        return ""
    document = {"folder": out.name, **run.to_dict()}
    return records.dumps(document) + "\n" if json else console.text(_show, document)


def evaluate(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="a folder of `toyiwae train`", show_default=False)
    ],
    K: Annotated[
        list[str] | None,
        typer.Option("-K", metavar="K,...", help="particles of the bounds; 1,64,5000 if not given"),
    ] = None,
    images: Annotated[
        int | None, typer.Option("--images", metavar="N", help="the first N test images; all if not given")
    ] = None,
    annealing_steps: Annotated[
        int,
        typer.Option("--annealing-steps", metavar="T", help="temperatures of annealed importance sampling"),
    ] = 0,
    annealing_images: Annotated[
        int,
        typer.Option("--annealing-images", metavar="N", help="test images, and simulated ones, to anneal"),
    ] = 100,
    chains: Annotated[int, typer.Option("--chains", metavar="C", help="of each annealed image")] = 16,
    snr_replicates: Annotated[
        int, typer.Option("--snr-replicates", metavar="R", help="gradients for the encoder's SNRs")
    ] = 0,
    snr_images: Annotated[
        int, typer.Option("--snr-images", metavar="N", help="of which they are compared with exact ones")
    ] = 8,
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="same seed, same numbers")] = 0,
    step: Annotated[
        int | None, typer.Option("--step", metavar="S", help="of the checkpoint; the latest if not given")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="where the IDX files of the images lie")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="strict JSON instead of a table")] = False,
) -> str:
    """Evaluate a trained run; writes evaluation-STEP.json, .npz and pictures into its folder."""
    from toyiwae import records

    import_extra("torch", extra="networks", purpose="toyiwae evaluate")
    import_extra("pydantic", extra="networks", purpose="toyiwae evaluate")
    from toyiwae.networks.runs import ranks

    found = toyiwae.evaluate(
        run,
        K=",".join(K) if K else (1, 64, 5000),
        images=images,
        annealing_steps=annealing_steps,
        annealing_images=annealing_images,
        chains=chains,
        snr_replicates=snr_replicates,
        snr_images=snr_images,
        seed=seed,
        step=step,
        data_dir=data_dir,
        note=console.note,
        spread=ranks.started(),
    )
    if not ranks.is_first():
        return ""
    found.save(run)
    document = found.to_dict()
    return records.dumps(document) + "\n" if json else console.text(_show_evaluation, document)


@data.callback()
def _data() -> None:
    """Holds `fetch`."""


@data.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="mnist", show_default=False)],
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="where to; the user's cache if not given")
    ] = None,
    mirror: Annotated[
        list[str] | None,
        typer.Option("--mirror", metavar="URL", help="a folder with the gzipped files; repeatable, in order"),
    ] = None,
) -> str:
    """Bring a data set's files here, each checked by its SHA-256; what is there already is left alone."""
    from toyiwae.networks.data.fetch import fetch as bring

    return f"{bring(name, data_dir, mirrors=mirror, report=console.note)}\n"


def _show(console: Console, document: Mapping[str, Any]) -> None:
    """The members and their last line of metrics."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("model", "proposal", "M", "K", "seed", "learning rate", "bound", "ESS"):
        table.add_column(heading, justify="left" if heading in ("model", "proposal") else "right")
    for member in document["members"]:
        numbers = [member[key] for key in ("bound", "ess")]
        shown = ["–" if number is None else f"{number:.4f}" for number in numbers]
        keys = ("model", "proposal", "M", "K", "seed", "learning_rate")
        table.add_row(*(f"{member[key]}" for key in keys), *shown)
    console.print(f"{document['data']}; after step {document['step']}")
    console.print(table)


def _show_evaluation(console: Console, document: Mapping[str, Any]) -> None:
    """A line for every member and number of particles, and below what was measured of the member besides."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    exact = any("log_p" in member for member in document["members"])
    for heading in ("member", "K", "bound", "± se", *(("exact", "z") if exact else ()), "ESS"):
        table.add_column(heading, justify="left" if heading == "member" else "right")
    for member in document["members"]:
        for index, line in enumerate(member["bounds"]):
            numbers = [f"{line['bound']:.3f}", "–" if line["se"] is None else f"{line['se']:.3f}"]
            numbers += [f"{line['exact']:.3f}", f"{line['z']:.2f}"] if exact else []
            table.add_row("" if index else _name(member), f"{line['K']}", *numbers, f"{line['ess']:.2f}")
    console.print(f"{document['images']} test images of {document['data']}; after step {document['step']}")
    console.print(table)
    for member in document["members"]:
        console.print(f"{_name(member)}: {'; '.join(_besides(member))}")


def _name(member: Mapping[str, Any]) -> str:
    """How a table calls a member."""
    rules = dict.fromkeys((member["model"], member["proposal"]))
    return f"{'/'.join(rules)} M={member['M']} K={member['K']} seed={member['seed']}"


def _besides(member: Mapping[str, Any]) -> Iterator[str]:
    """What a member's record says beside its bounds, in short phrases."""
    yield f"{member['active_units']} of {member['units']} units active"
    if "pareto_k" in member:
        yield f"k̂ above 0.7 for {member['pareto_k']['above_0.7']:.0%} of images"
    if member.get("encoder_snr", {}).get("median") is not None:
        yield f"median SNR of encoder weights {member['encoder_snr']['median']:.3g}"
    if "annealed" in member:
        own = member["annealed"]
        yield f"annealed log p {own['log_p']:.3f} on {own['images']} images, bound there {own['same_images_bound']:.3f}"
        own = member["sandwich"]
        yield f"simulated images within {own['width']:.3f} ± {own['width_se']:.3f}"
    if "exact_snr" in member and member["exact_snr"]["largest_z"] is not None:
        own = member["exact_snr"]
        yield f"{own['tests']} exact SNRs, largest |z| {own['largest_z']:.2f} (threshold {own['threshold']:.2f})"
