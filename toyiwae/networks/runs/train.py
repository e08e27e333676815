"""The loop that trains: a batch, a step, Adam; metrics and checkpoints at their time.

Whatever a step needs follows from its number: the order of images, their binarisation and the particles' noise are
keyed by seed and step, so a checkpoint holds parameters, the optimiser's moments and the averages under way, and what
is resumed from it is the uninterrupted run, bit for bit on one device.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from toyiwae.arguments import whole_number
from toyiwae.checks import shown
from toyiwae.errors import DivergenceError, InputError
from toyiwae.extras import import_extra
from toyiwae.networks.averages import ImageAverage
from toyiwae.networks.compiled import compiled
from toyiwae.networks.counters import Counters
from toyiwae.networks.data.batches import Batches, DeviceBatches
from toyiwae.networks.data.images import Images
from toyiwae.networks.optim import Adam, DeviceAdam, stage_factor
from toyiwae.networks.resident import NEVER
from toyiwae.networks.runs import checkpoints, progress, signals
from toyiwae.networks.runs.checkpoints import Checkpoint
from toyiwae.networks.runs.device_steps import DeviceSteps, graph_wanted
from toyiwae.networks.runs.folder import RunFolder, opened
from toyiwae.networks.runs.run import Run, adopt, fresh, images_of, read_metrics
from toyiwae.networks.runs.settings import Settings, read
from toyiwae.networks.step import step

Tensor = torch.Tensor


def train(
    settings: str | os.PathLike[str] | Mapping[str, Any] | Settings,
    out: str | os.PathLike[str] | None = None,
    *,
    resume: bool = False,
    assignments: Iterable[str] = (),
    data_dir: str | os.PathLike[str] | None = None,
    images: Images | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    show_progress: bool | None = None,
    note: Callable[[str], Any] = lambda line: None,
) -> Run:
    """Trains a stack of models; all members in one run.

    Args:
        settings: a TOML file, or the tables it would hold.
        out: the run's folder; without one nothing is written.
        resume: go on from the latest checkpoint in `out`, if there is one.
        assignments: `"table.key=value"`, as `--set` takes them.
        data_dir: where the IDX files of the images lie, in place of the settings' `data.folder`.
        images: images of your own, in place of those that the settings name, binarised as they say.
        minutes: when to stop, after one step at least, with a checkpoint to go on from; by default only at the end.
        steps: after how many steps, counted from the run's beginning, to stop in the same way.
        show_progress: whether there is a progress bar; by default if standard error is a terminal.
        note: told in one line where a resumed run goes on, and where one stops before its end.

    Returns:
        The run, with its model at the last step.

    Raises:
        KeyboardInterrupt: on Ctrl-C, once a checkpoint is written; SIGTERM waits for that, too.
        InputError: in one line, for settings, images, folders and checkpoints that do not fit; nothing is written then.
        DivergenceError: a bound or parameter is no longer finite; checkpoints written before stay.
        MissingExtraError: TensorBoard is asked for and not installed.
        ToyiwaeError: no room for a checkpoint; the last one stays.
    """
    if minutes is not None and not 0.0 < minutes < math.inf:
        raise InputError(f"minutes is {shown(minutes)}: expected a number greater than 0")
    last = NEVER if steps is None else whole_number(steps, "steps")
    until = None if minutes is None else time.monotonic() + 60.0 * minutes
    chosen = read(settings, assignments)
    data = images_of(chosen, data_dir, images)
    if data_dir is not None:
        chosen = chosen.model_copy(
            update={"data": chosen.data.model_copy(update={"folder": os.path.abspath(data_dir)})}
        )
    if chosen.output.tensorboard:
        import_extra("tensorboard", extra="tensorboard", purpose="output.tensorboard")
    work = _Training(fresh(chosen, data))
    if out is None:
        lines: list[Mapping[str, Any]] = []
        work.loop(None, lambda metrics, times: lines.append(metrics), show_progress, until, last)
        return replace(work.run, step=work.done, metrics=tuple(lines))
    with opened(out, chosen, resume=resume) as folder:
        checkpoint = folder.last()
        if checkpoint is not None:
            work.load(checkpoint)
            note(f"goes on after step {work.done} of {work.total}")
        folder.begin(checkpoint)
        with _tensorboard(folder, work) as also:
            work.loop(folder, also, show_progress, until, last)
        if work.done < work.total:
            note(f"stops after step {work.done} of {work.total}: resume it to go on")
        return replace(work.run, step=work.done, metrics=read_metrics(folder.path), folder=folder.path)


class _Training:
    """A run under way.

    Attributes:
        run: its settings, members, model and images.
        done, total: steps made and to make.
    """

    def __init__(self, run: Run):
        """Everything before the first step.

        Raises:
            InputError: members that do not go with the model.
        """
        training = run.settings.training
        self.run, self.done, self._noise = run, 0, run.noise
        self._model = compiled(run.model) if training.compile else run.model
        rates = [member.learning_rate for member in run.members]
        self._window, self._device = self._empty(), None
        if isinstance(self._noise, Counters):
            self._batches = DeviceBatches(run.images, self._noise, training.batch)
            self._adam = DeviceAdam(run.model.parameters, rates, eps=training.adam_eps)
            self._device = DeviceSteps(run, self._model, self._batches, self._adam)
            self._first_bad = self._device.first_bad
        else:
            graph_wanted(run)
            self._batches = Batches(run.images, self._noise, training.batch)
            self._adam = Adam(run.model.parameters, rates, eps=training.adam_eps)
            self._first_bad = torch.full((len(run.members),), NEVER, device=self._noise.device)
        self.total = training.epochs * self._batches.per_epoch
        self._images = run.images.content_hash
        step(
            run.model, run.members, self._batches.at(0)[:, :1], self._noise
        )  # what it refuses is refused now

    def _empty(self) -> ImageAverage:
        """An average of bound and effective sample size `[2, E]` over no images."""
        return ImageAverage.empty(2, len(self.run.members), device=self._noise.device)

    def tensors(self) -> dict[str, Tensor]:
        """All that the next steps depend on."""
        state = {f"parameters.{name}": value for name, value in self.run.model.parameters.items()}
        state |= {f"adam.{name}": value for name, value in self._adam.state().items()}
        return state | {"window.total": self._window.total, "window.count": torch.tensor(self._window.count)}

    def load(self, checkpoint: Checkpoint) -> None:
        """Goes back to a checkpoint.

        Raises:
            InputError: it belongs to other settings or images.
        """
        adopt(self.run, checkpoint)
        state = checkpoint.tensors
        self._adam.load({name[5:]: value for name, value in state.items() if name.startswith("adam.")})
        total = state["window.total"].to(self._noise.device)
        self._window, self.done = ImageAverage(total, int(state["window.count"])), checkpoint.step
        if self._device is not None:
            self._device.begin(self.done, self._window)

    def loop(
        self,
        folder: RunFolder | None,
        also: Callable[[Mapping[str, Any], Mapping[str, Any]], Any],
        show_progress: bool | None,
        until: float | None = None,
        last: int = NEVER,
    ) -> None:
        """Makes the steps that are left, before a time on the clock and up to a last one.

        `also` is told every line of metrics and times.
        """
        output, began, first = self.run.settings.output, time.monotonic(), self.done
        if not self.done:
            self._save(folder)
        with signals.waiting() as came, progress.bar(self.total, self.done, wanted=show_progress) as update:
            while self.done < min(self.total, last) and came() is None:
                bound = self._step()
                update(self.done, bound)
                if self.done % output.metrics_every == 0 or self.done == self.total:
                    self._check(folder)
                    rate = (self.done - first) / (time.monotonic() - began)
                    metrics, times = self._line(), {"step": self.done, "steps_per_second": round(rate, 3)}
                    self._window = self._empty()
                    if folder is not None:
                        folder.append(metrics, times)
                    also(metrics, times)
                if self.done % output.checkpoint_every == 0:
                    self._save(folder)
                if until is not None and time.monotonic() >= until:
                    break
            if (
                self.done % output.checkpoint_every and self.done > first
            ):  # the last step, a signal, or no time
                self._save(folder)

    def _save(self, folder: RunFolder | None) -> None:
        """Writes a checkpoint, unless there is no folder, or something is not finite."""
        if folder is not None:
            self._check(folder)
            folder.save(self.done, self._images, self.tensors())

    def _step(self) -> Tensor:
        """One step of all members; their bounds `[E]`."""
        if self._device is not None:
            self._window, self.done = self._device.make(self.done, self._window), self.done + 1
            return self._device.bound
        x = self._batches.at(self.done)
        result = step(self._model, self.run.members, x, self._noise.at(self.done))
        epoch = self.done // self._batches.per_epoch
        staged = self.run.settings.training.schedule == "stages"
        self._adam.step(result.gradients, stage_factor(epoch) if staged else 1.0)
        bad = torch.where(result.bound.isfinite(), NEVER, self.done + 1)
        self._first_bad = torch.minimum(self._first_bad, bad)  # looked at later, so that a GPU need not wait
        self._window = self._window.add_mean(torch.stack([result.bound, result.ess]), x.shape[1])
        self.done += 1
        return result.bound

    def _line(self) -> dict[str, Any]:
        """Means over the images since the last line."""
        bound, ess = self._window.mean.tolist()
        epoch = self.done / self._batches.per_epoch
        return {
            "step": self.done,
            "epoch": round(epoch, 6),
            "data": self.run.images.description,
            "bound": bound,
            "ess": ess,
        }

    def _check(self, folder: RunFolder | None) -> None:
        """Stops a run whose bound or parameters are no longer finite.

        Raises:
            DivergenceError: naming the member, the step and the last good checkpoint.
        """
        first = int(self._first_bad.min())
        if first < NEVER:
            index, what = int(self._first_bad.argmin()), f"the bound is not finite at step {first}"
        else:
            finite = torch.stack(
                [value.flatten(1).isfinite().all(1) for value in self.run.model.parameters.values()]
            ).all(0)
            if bool(finite.all()):
                return
            index, what = int(finite.int().argmin()), f"parameters are not finite after step {self.done}"
        found = checkpoints.found(folder.checkpoints)[-1:] if folder is not None else []
        last = f"the last good checkpoint is {str(found[0])!r}" if found else "no checkpoint was written"
        raise DivergenceError(f"{what} for {self.run.members[index]}; {last}")


@contextlib.contextmanager
def _tensorboard(
    folder: RunFolder, work: _Training
) -> Iterator[Callable[[Mapping[str, Any], Mapping[str, Any]], Any]]:
    """Within the block: what writes TensorBoard's files, if the settings ask for them."""
    if not folder.settings.output.tensorboard:
        yield lambda metrics, times: None
        return
    module = import_extra("torch.utils.tensorboard", extra="tensorboard", purpose="output.tensorboard")
    writer = module.SummaryWriter(str(folder.path / "tensorboard"), purge_step=work.done + 1)
    names = [
        f"{i} {m.model}/{m.proposal} M={m.M} K={m.K} seed={m.seed}" for i, m in enumerate(work.run.members)
    ]

    def write(metrics: Mapping[str, Any], times: Mapping[str, Any]) -> None:
        for key in ("bound", "ess"):
            for name, value in zip(names, metrics[key], strict=True):
                writer.add_scalar(f"{key}/{name}", value, metrics["step"])
        writer.add_scalar("steps per second", times["steps_per_second"], metrics["step"])

    try:
        yield write
    finally:
        writer.close()
