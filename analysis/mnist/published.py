"""What Rainforth et al. (2018) report on MNIST, under which settings, and in what a run of ours differs from them.

`published.csv` holds log p̂ by method (mean and standard error over four runs), and what a well-known library's
reproduction reports.

References:
    rainforth2018tighter, burda2016iwae
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from toyiwae.networks.optim import EPOCHS
from toyiwae.networks.runs.run import Run

FILE = Path(__file__).with_name("published.csv")
METHOD = ["model", "M", "K"]


@dataclass(frozen=True)
class Conditions:
    """Everything that a result depends on beside the method.

    Attributes:
        data: images, and how they become observations.
        train, test: how many images there are to train on, and how many log p̂ is averaged over.
        network: widths from the image to the latents.
        batch: images of a step.
        learning_rate: of Adam at the beginning, with its schedule.
        epochs: how often each image was used.
        seeds: runs that are averaged.
        particles: of log p̂.
        products: precision of the networks' products.
    """

    data: str
    train: int
    test: int
    network: str
    batch: int
    learning_rate: str
    epochs: float
    seeds: int
    particles: int
    products: str


WORDS = {
    "data": "images",
    "train": "training images",
    "test": "images of the evaluation",
    "network": "network",
    "batch": "images of a batch",
    "learning_rate": "learning rate",
    "epochs": "epochs",
    "seeds": "runs (seeds)",
    "particles": "particles of log p̂",
    "products": "products",
}

THEIRS = Conditions(
    data="mnist, dynamic binarisation",
    train=60_000,
    test=10_000,
    network="784-200-200-50",
    batch=20,
    learning_rate="0.001, stages",
    epochs=EPOCHS,
    seeds=4,
    particles=5000,
    products="not said",
)
"""Of the paper's table; the schedule is Burda's, of 3,280 epochs."""


def published() -> Any:
    """A row for each method: model, M, K, log_p, se and reproduction (NaN where there is none)."""
    return pd.read_csv(FILE).rename(columns={"estimator": "model"})


def conditions(run: Run, test: int, particles: int) -> Conditions:
    """Those of a run of ours, evaluated on so many images with so many particles."""
    training, model = run.settings.training, run.settings.model
    images, latents = run.images, getattr(model, "latents", "?")
    widths = [images.train.shape[1], *getattr(model, "hidden", ()), latents]
    return Conditions(
        data=images.description,
        train=len(images.train),
        test=test,
        network="-".join(map(str, widths)),
        batch=training.batch,
        learning_rate=f"{', '.join(f'{rate:g}' for rate in training.learning_rates)}, {training.schedule}",
        epochs=run.step / -(-len(images.train) // training.batch),
        seeds=len(training.seeds),
        particles=particles,
        products=getattr(model, "products", "?"),
    )


def beside(ours: Conditions, theirs: Conditions = THEIRS) -> list[tuple[str, Any, Any, bool | None]]:
    """(what, ours, theirs, whether they agree) of every condition; None where theirs is not said."""
    rows = []
    for name, own in vars(ours).items():
        other = getattr(theirs, name)
        rows.append((WORDS[name], own, other, None if other == "not said" else own == other))
    return rows


def comparable(ours: Conditions) -> bool:
    """Whether nothing that is known differs; only then may a number of ours be set beside theirs as the same thing."""
    return all(agrees is not False for *_, agrees in beside(ours))
