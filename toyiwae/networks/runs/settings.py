"""Settings of a training: a TOML file, `--set key=value` over it, checked before anything is written.

Members of the stack are a grid: every rule of `[[members]]`, at every seed and every learning rate of `[training]`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, ValidationError

from toyiwae import files
from toyiwae.checks import nearest, shown
from toyiwae.errors import InputError
from toyiwae.networks.members import Member, particles_of
from toyiwae.networks.optim import stage_factor
from toyiwae.networks.runs.tables import MODELS, AnyModel, Count, DataSettings, Positive, Seed, Table

RULES = ("estimator", "model", "proposal")
"""Keys of a member that name an estimator."""


class RuleSettings(Table):
    """Estimators, groups and particles of some members.

    Attributes:
        estimator: of all gradients; or
        model, proposal: of the decoder's and the encoder's.
        M, K: groups, and particles of each.
    """

    estimator: str | None = None
    model: str | None = None
    proposal: str | None = None
    M: Count = 1
    K: Count


class TrainingSettings(Table):
    """How long and with what steps.

    Attributes:
        epochs: how often each image is used.
        batch: images of a step; the last step of an epoch takes what is left.
        seeds, learning_rates: of the members.
        schedule: "constant", or "stages" for the eight of Burda et al. (2016), which end after 3,280 epochs.
        adam_eps: what Adam adds to the root of the second moment.
        dtype: "float32" or "float64".
        device: "cpu", "cuda" or "cuda:N".
        compile: whether `torch.compile` fuses the passes of a step.
        random: where random numbers come from: "torch", its generators of the device; "philox", counters, the same on
            every device; "auto", counters on a GPU but for a module of the user's, and torch elsewhere.
        graph: whether a step is one CUDA graph: "on", "off", or "auto", wherever it can be.
        split: what several processes divide among them (`torchrun`): "members", and images where there are more
            processes than members; or "images" of every batch. Numbers differ in round-off only.
    """

    epochs: Count
    batch: Count = 20
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    learning_rates: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1e-3,)
    schedule: Literal["constant", "stages"] = "constant"
    adam_eps: Positive = 1e-4
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "cpu"
    compile: bool = False
    random: Literal["auto", "torch", "philox"] = "auto"
    graph: Literal["auto", "on", "off"] = "auto"
    split: Literal["members", "images"] = "members"

    def factor(self, epoch: int) -> float:
        """What multiplies the learning rates in an epoch counted from 0."""
        return stage_factor(epoch) if self.schedule == "stages" else 1.0


class OutputSettings(Table):
    """What is written when.

    Attributes:
        metrics_every: steps that a line of `metrics.jsonl` averages over; there is one at the end, too.
        checkpoint_every: steps between checkpoints; there is one at the end, too.
        keep: how many checkpoints stay, the latest; 0 for all.
        tensorboard: whether TensorBoard's files are written, too (extra `tensorboard`).
    """

    metrics_every: Count = 100
    checkpoint_every: Count = 1000
    keep: Annotated[int, Field(ge=0)] = 2
    tensorboard: bool = False


class Settings(Table):
    """All settings of a training."""

    data: DataSettings = DataSettings()
    model: AnyModel
    members: Annotated[tuple[RuleSettings, ...], Field(min_length=1)]
    training: TrainingSettings
    output: OutputSettings = OutputSettings()

    def stack(self) -> tuple[Member, ...]:
        """The members: rules outermost, then learning rates, then seeds.

        Raises:
            InputError: that names the rule at fault; members with other M·K, or two that are the same.
        """
        members = [
            Member(*names, rule.M, rule.K, seed, rate)
            for rule, names in zip(self.members, self._rules(), strict=True)
            for rate in self.training.learning_rates
            for seed in self.training.seeds
        ]
        particles_of(members)
        if self.model.kind == "module" and len(members) > 1:
            raise InputError(
                f"model.kind is 'module', trained alone: expected one member, not {len(members)}"
            )
        twice = next((member for member in members if members.count(member) > 1), None)
        if twice is not None:
            raise InputError(f"two members are the same: {twice}: expected each once")
        return tuple(members)

    def _rules(self) -> list[tuple[str, str]]:
        """The estimators of each rule, for the decoder and for the encoder."""
        found = []
        for index, rule in enumerate(self.members):
            model, proposal = rule.model or rule.estimator, rule.proposal or rule.estimator
            given = [name is not None for name in (rule.estimator, rule.model, rule.proposal)]
            if not model or not proposal or given not in ([True, False, False], [False, True, True]):
                raise InputError(f"members[{index}]: expected either estimator, or both model and proposal")
            try:
                Member(model, proposal, rule.M, rule.K, 0)
            except InputError as error:
                raise InputError(f"members[{index}]: {error}") from None
            found.append((model, proposal))
        return found

    @property
    def counters(self) -> bool:
        """Whether random numbers come from counters: by default on a GPU, unless a module of the user's draws them."""
        if self.training.random == "auto":
            return self.training.device.startswith("cuda") and self.model.kind != "module"
        return self.training.random == "philox"

    def plain(self) -> dict[str, Any]:
        """As nested dicts and lists, without what is not given."""
        return json.loads(self.model_dump_json(exclude_none=True))

    def toml(self) -> str:
        """As a settings file, every value written out."""
        return tomli_w.dumps(self.plain())

    def numbers(self) -> dict[str, Any]:
        """What decides the run's numbers, flat: "training.batch" -> 20. Not folders, nor who works and writes when.

        Of the user's own Python files it is their content, by its SHA-256.

        Raises:
            InputError: such a file is no longer there.
        """
        own = flat(self.plain())
        without = {"data.folder", "output.checkpoint_every", "output.keep", "output.tensorboard"}
        without |= {"training.graph", "training.split"} | (set() if self.counters else {"training.random"})
        own |= {"training.random": "philox"}  # where it is meant, by "auto" too
        if self.model.kind == "module":
            path, _, name = self.model.file.partition(".py:")
            own |= {"model.file": f"{Path(path).name}.py:{name}", "model.code": _content(Path(f"{path}.py"))}
        for index, rule in enumerate(own["members"]):
            for key in RULES:
                if ".py:" in (spec := rule.get(key, "")):
                    path, _, name = spec.partition(".py:")
                    rule[key] = f"{Path(path).name}.py:{name}"
                    own[f"members.code.{index}.{key}"] = _content(Path(f"{path}.py"))
        return {key: value for key, value in own.items() if key not in without}

    @property
    def content_hash(self) -> str:
        """The SHA-256 of `numbers`."""
        return hashlib.sha256(json.dumps(self.numbers(), sort_keys=True).encode()).hexdigest()


def _content(file: Path) -> str:
    """The SHA-256 of a user's file."""
    with files.reading(file, "a Python file") as stream:
        return hashlib.sha256(stream.read()).hexdigest()


def flat(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with dots in the keys; lists stay."""
    found: dict[str, Any] = {}
    for key, value in tables.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


def read(
    source: str | os.PathLike[str] | Mapping[str, Any] | Settings, assignments: Iterable[str] = ()
) -> Settings:
    """The checked settings.

    Args:
        source: a TOML file, or the tables it would hold, or settings. Paths in a file (`data.folder`, `model.file`,
            estimators "FILE.py:NAME" of members) are relative to its folder, others to the working directory.
        assignments: `"table.key=value"`, the value in TOML (`[1, 8]`, `0.5`, `true`) or else text; later ones win.

    Raises:
        InputError: in one line that names the file, the key, the value, and what would be right.
    """
    if isinstance(source, Settings):
        source = source.plain()
    if isinstance(source, Mapping):
        tables = dict(source)
    else:
        tables = _beside(files.read_toml(source), os.path.dirname(os.path.abspath(source)))
    for assignment in assignments:
        tables = _assigned(tables, assignment)
    tables = _beside(tables, os.getcwd())  # a run's folder keeps them, and is read wherever one works

    def refuse(value: object) -> object:
        raise InputError(f"a setting is {shown(value)}: expected numbers, texts, lists, tables and booleans")

    try:  # as JSON, where a list may stand for a tuple and nothing else is converted
        settings = Settings.model_validate_json(json.dumps(tables, default=refuse))
    except ValidationError as error:
        raise InputError(_in_words(error)) from None
    settings.stack()
    return settings


def _beside(tables: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Tables with the paths in them as absolute ones, relative ones being those of a folder."""

    def placed(table: Any, keys: Iterable[str], mark: str = "") -> Any:
        """With these keys as paths, where they are texts with the mark in them."""
        if not isinstance(table, Mapping):
            return table
        found = {key: table[key] for key in keys if isinstance(table.get(key), str)}
        paths = {key: os.path.join(folder, text) for key, text in found.items() if text and mark in text}
        return {**table, **paths}

    result = dict(tables)
    for name, key in (("data", "folder"), ("model", "file")):
        if name in result:
            result[name] = placed(result[name], (key,))
    if isinstance(result.get("members"), (list, tuple)):
        result["members"] = [placed(rule, RULES, ".py:") for rule in result["members"]]
    return result


def _assigned(tables: Mapping[str, Any], assignment: str) -> dict[str, Any]:
    """Tables with one value set."""
    name, equals, text = assignment.partition("=")
    *above, key = name.strip().split(".")
    if not equals or not key or not all(above):
        raise InputError(f"--set {assignment}: expected TABLE.KEY=VALUE, such as training.batch=20")
    result = dict(tables)
    table = result
    for part in above:
        inner = table.get(part, {})
        if not isinstance(inner, Mapping):
            raise InputError(f"--set {assignment}: {part} is {shown(inner)}, no table; give all of it")
        table[part] = table = dict(inner)
    table[key] = files.toml_value(text.strip())
    return result


def _in_words(error: ValidationError) -> str:
    """The first fault in one line."""
    first = error.errors(include_url=False)[0]
    place = [part for part in first["loc"] if part not in MODELS]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    table, _, last = key.rpartition(".")
    if first["type"] == "extra_forbidden":
        known = nearest(last, _known(first["loc"]))
        return f"{table or 'the settings'} has the unknown key {last!r}: {known}"
    if first["type"] == "missing":
        return f"{table or 'the settings'} lacks {last}"
    if first["type"].startswith("union_tag"):
        return f"{key}.kind is {shown(first['input'].get('kind'))}: expected {' or '.join(MODELS)}"
    if first["type"] == "too_short":
        return f"{key} is empty: expected at least one"
    wanted = first["msg"].removeprefix("Input should be ").replace("an object", "a table")
    return f"{key} is {shown(first['input'])}: expected {wanted}"


def _known(place: tuple[int | str, ...]) -> list[str]:
    """The keys that there are beside the one at a place of the file."""
    tables = {"data": DataSettings, "members": RuleSettings, "training": TrainingSettings}
    tables |= {"output": OutputSettings, **MODELS}
    inner = [tables[str(part)] for part in place[:-1] if str(part) in tables]
    return list((inner[-1] if inner else Settings).model_fields)
