"""The tables of a settings file that say which images and which model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from toyiwae.networks.data.images import Binarisation
from toyiwae.networks.products import Products

Count = Annotated[int, Field(ge=1, le=10**15)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[float, Field(gt=0)]


class Table(BaseModel):
    """A table of the file: strict, closed, finite and frozen."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )


class DataSettings(Table):
    """Images.

    Attributes:
        name: "digits", "mnist", or "idx" for any IDX files.
        folder: of the IDX files; where they lie is not part of what a run is, what they hold is.
        binarisation: "dynamic", "fixed" or "grey".
        binarisation_seed: of a fixed one.
        train, test: the first so many images; all if not given.
    """

    name: Literal["digits", "mnist", "idx"] = "digits"
    folder: str = ""
    binarisation: Binarisation = "dynamic"
    binarisation_seed: Seed = 0
    train: Count | None = None
    test: Count | None = None


class _Model(Table):
    """What all models take: the precision of their products."""

    products: Products = "float32"


class BernoulliVae(_Model):
    """`toyiwae.networks.models.bernoulli_vae` and its arguments."""

    kind: Literal["bernoulli_vae"]
    latents: Count = 50
    hidden: tuple[Count, ...] = (200, 200)
    proposal: Literal["mean_field", "full", "bernoulli"] = "mean_field"


class LinearGaussian(_Model):
    """`toyiwae.networks.models.linear_gaussian` and its arguments."""

    kind: Literal["linear_gaussian"]
    latents: Count = 10
    hidden: tuple[Count, ...] = ()
    proposal: Literal["mean_field", "full"] = "mean_field"
    per_pixel: bool = False
    floor_var: Annotated[float, Field(ge=0)] = 1e-3
    noise_var: Positive = 0.1


class TwoLayerVae(_Model):
    """`toyiwae.networks.models.two_layer_vae` and its arguments."""

    kind: Literal["two_layer_vae"]
    latents: tuple[Count, Count] = (100, 50)
    hidden: tuple[Count, ...] = (200, 200)
    inner_hidden: tuple[Count, ...] = (100, 100)


class Module(Table):
    """A torch module of the user's own (`toyiwae.networks.users.ModuleModel`).

    Attributes:
        file: "FILE.py:NAME": NAME is a function in that file that takes the training images' mean `[D_x]` and returns
            the module.
    """

    kind: Literal["module"]
    file: str


MODELS = {
    "bernoulli_vae": BernoulliVae,
    "linear_gaussian": LinearGaussian,
    "two_layer_vae": TwoLayerVae,
    "module": Module,
}
"""Kind of model -> its settings; all but the last are called as the function of `toyiwae.networks.models` is."""

AnyModel = Annotated[BernoulliVae | LinearGaussian | TwoLayerVae | Module, Field(discriminator="kind")]
