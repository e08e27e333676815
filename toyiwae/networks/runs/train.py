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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from toyiwae import signals
from toyiwae.arguments import whole_number
from toyiwae.checks import shown
from toyiwae.errors import DivergenceError, InputError, ToldElsewhereError
from toyiwae.extras import import_extra
from toyiwae.networks.averages import ImageAverage
from toyiwae.networks.compiled import compiled
from toyiwae.networks.counters import Counters
from toyiwae.networks.data.batches import Batches, DeviceBatches
from toyiwae.networks.data.images import Images
from toyiwae.networks.optim import Adam, DeviceAdam
from toyiwae.networks.resident import NEVER
from toyiwae.networks.runs import checkpoints, memory, progress, ranks
from toyiwae.networks.runs.checkpoints import Checkpoint
from toyiwae.networks.runs.device_steps import DeviceSteps, graph_wanted
from toyiwae.networks.runs.folder import RunFolder, opened
from toyiwae.networks.runs.ranks import own_rows
from toyiwae.networks.runs.run import Run, adopt, fresh, images_of, located, noise_of, read_metrics
from toyiwae.networks.runs.settings import Settings, read
from toyiwae.networks.runs.spread import Spread, divide, take_device
from toyiwae.networks.runs.tensorboard import Tell, tensorboard
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
    spread: bool = False,
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
        spread: divide the work among the processes that torchrun has started, all of which must call this alike; the
            first writes. On GPUs each takes its own.

    Returns:
        The run, with its model at the last step; the same in every process.

    Raises:
        KeyboardInterrupt: on Ctrl-C, once a checkpoint is written; SIGTERM waits for that, too.
        InputError: in one line, for settings, images, folders and checkpoints that do not fit; nothing is written then.
        DivergenceError: a bound or parameter is no longer finite; checkpoints written before stay.
        MissingExtraError: TensorBoard is asked for and not installed.
        ToyiwaeError: no room for a checkpoint, or another process is gone; the last checkpoint stays.
        ToldElsewhereError: another process had one of these errors.
    """
    until = time.monotonic() + 60.0 * (math.inf if minutes is None else minutes)
    with ranks.joined(spread) as others, contextlib.ExitStack() as stack:
        with others.together():
            if minutes is not None and not 0.0 < minutes < math.inf:
                raise InputError(f"minutes is {shown(minutes)}: expected a number greater than 0")
            last = NEVER if steps is None else whole_number(steps, "steps")
            chosen = located(read(settings, assignments), data_dir)
            data = images_of(chosen, data_dir, images)
            if chosen.output.tensorboard:
                import_extra("tensorboard", extra="tensorboard", purpose="output.tensorboard")
            take_device(others, chosen.training.device)
        divided = divide(others, chosen, data)
        with others.together():
            writes = out is not None and others.first
            device = torch.device(noise_of(chosen, ()).device)
            memory.check(chosen, data, divided.share, device, writes=writes)
            work = _Training(fresh(chosen, data, divided.share.members), divided, writes=out is not None)
        if out is None:
            lines: list[Mapping[str, Any]] = []
            work.loop(None, lambda metrics, times: lines.append(metrics), show_progress, until, last)
            metrics = tuple(others.from_first(lines))
            return replace(divided.whole_run(work.run), step=work.done, metrics=metrics)
        folder = checkpoint = None
        with others.together():
            if others.first:
                folder = stack.enter_context(opened(out, chosen, resume=resume))
                checkpoint = folder.last()
        checkpoint = others.from_first(checkpoint)
        with others.together():
            if checkpoint is not None:
                work.load(checkpoint)
            if folder is not None:
                folder.begin(checkpoint)
        if checkpoint is not None and others.first:
            note(f"goes on after step {work.done} of {work.total}")
        also = stack.enter_context(tensorboard(folder, chosen.stack(), work.done))
        work.loop(folder, also, show_progress, until, last)
        if work.done < work.total and others.first:
            note(f"stops after step {work.done} of {work.total}: resume it to go on")
        metrics = others.from_first(None if folder is None else read_metrics(folder.path))
        run = divided.whole_run(work.run)
        return replace(run, step=work.done, metrics=metrics, folder=Path(out))


class _Training:
    """A run under way.

    Attributes:
        run: its settings and images; this process's members, and the model of these.
        done, total: steps made and to make.
    """

    def __init__(self, run: Run, spread: Spread, *, writes: bool):
        """Everything before the first step.

        Raises:
            InputError: members that do not go with the model.
        """
        training = run.settings.training
        self.run, self.done, self._noise, self._spread = run, 0, run.noise, spread
        self._writes = writes
        self._model = compiled(run.model) if training.compile else run.model
        rates = [member.learning_rate for member in run.members]
        self._window, self._device = self._empty(), None
        if isinstance(self._noise, Counters):
            self._batches = DeviceBatches(run.images, self._noise, training.batch)
            self._adam = DeviceAdam(run.model.parameters, rates, eps=training.adam_eps)
            take = step if spread.share.parts == 1 else spread.step
            self._device = DeviceSteps(run, self._model, self._batches, self._adam, take)
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
        state = own_rows(checkpoint.tensors, self._spread.share.members)
        adopt(self.run, replace(checkpoint, tensors=state))
        self._adam.load({name[5:]: value for name, value in state.items() if name.startswith("adam.")})
        total = state["window.total"].to(self._noise.device)
        self._window, self.done = ImageAverage(total, int(state["window.count"])), checkpoint.step
        if self._device is not None:
            self._device.begin(self.done, self._window)

    def loop(
        self,
        folder: RunFolder | None,
        also: Tell,
        show_progress: bool | None,
        until: float = math.inf,
        last: int = NEVER,
    ) -> None:
        """Makes the steps that are left, before a time on the clock and up to a last one.

        `also` is told every line of metrics and times.
        """
        output, began, first = self.run.settings.output, time.monotonic(), self.done
        others = self._spread.ranks
        shown = show_progress if others.first else False
        if not self.done:
            self._save(folder)
        with signals.waiting() as came, progress.bar(self.total, self.done, wanted=shown) as update:

            def must_stop() -> bool:
                return came() is not None or (self.done > first and time.monotonic() >= until)

            while self.done < min(self.total, last) and not self._spread.stops(must_stop()):
                bound = self._step()
                update(self.done, bound)
                if self.done % output.metrics_every == 0 or self.done == self.total:
                    self._check(folder)
                    rate = (self.done - first) / (time.monotonic() - began)
                    metrics, times = self._line(), {"step": self.done, "steps_per_second": round(rate, 3)}
                    self._window = self._empty()
                    with others.together():
                        if folder is not None:
                            folder.append(metrics, times)
                        if others.first:
                            also(metrics, times)
                if self.done % output.checkpoint_every == 0:
                    self._save(folder)
            if self.done % output.checkpoint_every and self.done > first:  # the end, a signal, or no time
                self._save(folder)

    def _save(self, folder: RunFolder | None) -> None:
        """Writes a checkpoint, unless nothing is written, or something is not finite."""
        if self._writes:
            self._check(folder)
            tensors = self._spread.whole(self.tensors())
            with self._spread.ranks.together():
                if folder is not None and tensors is not None:
                    folder.save(self.done, self._images, tensors)

    def _step(self) -> Tensor:
        """One step of all members; their bounds `[E]`."""
        if self._device is not None:
            self._window, self.done = self._device.make(self.done, self._window), self.done + 1
            return self._device.bound
        x = self._batches.at(self.done)
        result = self._spread.step(self._model, self.run.members, x, self._noise.at(self.done))
        epoch = self.done // self._batches.per_epoch
        self._adam.step(result.gradients, self.run.settings.training.factor(epoch))
        bad = torch.where(result.bound.isfinite(), NEVER, self.done + 1)
        self._first_bad = torch.minimum(self._first_bad, bad)  # looked at later, so that a GPU need not wait
        self._window = self._window.add_mean(torch.stack([result.bound, result.ess]), x.shape[1])
        self.done += 1
        return result.bound

    def _line(self) -> dict[str, Any]:
        """Means over the images since the last line, of all members on process 0."""
        whole = self._spread.whole({"window.total": self._window.total}) or {}
        mean = ImageAverage(whole.get("window.total", self._window.total), self._window.count).mean
        bound, ess = mean.tolist()
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
            ToldElsewhereError: in all processes but the first.
        """
        found = self._spread.ranks.told(self._fault())
        if found is None:
            return
        if not self._spread.ranks.first:
            raise ToldElsewhereError(found[1])
        good = checkpoints.found(folder.checkpoints)[-1:] if folder is not None else []
        last = f"the last good checkpoint is {str(good[0])!r}" if good else "no checkpoint was written"
        raise DivergenceError(f"{found[1]}; {last}")

    def _fault(self) -> str | None:
        """What is not finite, if something is."""
        first = int(self._first_bad.min())
        if first < NEVER:
            index, what = int(self._first_bad.argmin()), f"the bound is not finite at step {first}"
        else:
            finite = torch.stack(
                [value.flatten(1).isfinite().all(1) for value in self.run.model.parameters.values()]
            ).all(0)
            if bool(finite.all()):
                return None
            index, what = int(finite.int().argmin()), f"parameters are not finite after step {self.done}"
        return f"{what} for {self.run.members[index]}"
