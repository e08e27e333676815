"""Runs studies under a progress bar, in this process or in several, and keeps what is finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from analysis import workers
from analysis.kept import Kept
from analysis.runner import Outcome, run
from analysis.settings import Settings
from analysis.study import Study, watched_by
from analysis.sweep.work import one_thread


def run_all(
    cells: Sequence[tuple[Study, Settings]],
    console: Console,
    venue: str = "jmlr",
    *,
    jobs: int | None = None,
    kept: Kept | None = None,
) -> list[Outcome]:
    """Runs studies and tells of each as it ends; the outcomes come in the order given, the same for any `jobs`.

    Args:
        cells: studies with their settings.
        console: where the bar and the lines go.
        venue: whose style the figures have.
        jobs: processes with one thread each, 1 for this process; None for this one too, with as many threads as
            libraries like. With several, a study that kills its process never ends this one, the last of all included.
        kept: where outcomes of an earlier run are taken from and those of this one go.

    Raises:
        KeyboardInterrupt: on Ctrl-C; what was finished is kept.
        OSError: an outcome cannot be kept.
    """
    with _progress(console) as bar:
        board = _Board(bar, cells, kept)
        for place, cell in enumerate(cells):
            if found := kept.load(*cell) if kept else None:
                board.show(place, found, "kept")
        left = [place for place in range(len(cells)) if place not in board.outcomes]
        if left and jobs is not None and jobs > 1:
            workers.run_on(min(jobs, len(left)), cells, left, venue, workers.Watch(board.begins, board.ends))
        else:
            with nullcontext() if jobs is None else one_thread():  # the same numbers as in a worker
                for place in left:
                    board.begins(place)
                    with _watching(bar):
                        outcome = run(*cells[place], venue)
                    board.ends(place, outcome)
    return [board.outcomes[place] for place in range(len(cells))]


class _Board:
    """The bar of studies, those under way below it, and what came of the others."""

    def __init__(self, bar: Progress, cells: Sequence[tuple[Study, Settings]], kept: Kept | None):
        """Shows an empty bar."""
        self.bar, self.cells, self.kept = bar, cells, kept
        self.studies = bar.add_task("studies", total=len(cells))
        self.under_way: dict[int, TaskID] = {}
        self.outcomes: dict[int, Outcome] = {}

    def begins(self, place: int) -> None:
        """Shows a study as under way; one that is begun again is so already."""
        if place not in self.under_way:
            title = self.cells[place][0].title
            self.under_way[place] = self.bar.add_task(f"  {title}", total=None)

    def ends(self, place: int, outcome: Outcome) -> None:
        """Keeps and shows an outcome."""
        if self.kept:
            self.kept.save(outcome)
        self.bar.remove_task(self.under_way.pop(place))
        self.show(place, outcome, f"{outcome.seconds:.1f} s")

    def show(self, place: int, outcome: Outcome, time: str) -> None:
        """A line for an outcome, and a step of the bar."""
        self.outcomes[place] = outcome
        held = sum(claim.passed for claim in outcome.claims)
        verdict = "broke down" if outcome.error else f"{held} of {len(outcome.claims)} claims hold"
        self.bar.advance(self.studies)
        self.bar.console.print(f"{'✓' if outcome.passed else '✗'} {outcome.study.title}: {verdict} ({time})")


def _progress(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True)


@contextmanager
def _watching(bar: Progress) -> Iterator[None]:
    """Shows the cells of every `track` within the block as a bar, taken away at the end."""
    tasks: list[TaskID] = []

    def watcher(total: int) -> Callable[[str], None]:
        task = bar.add_task("", total=total)
        tasks.append(task)
        done = -1

        def announce(label: str) -> None:
            nonlocal done
            done += 1
            bar.update(task, completed=done, description=f"  {label}")

        return announce

    try:
        with watched_by(watcher):
            yield
    finally:
        for task in tasks:
            bar.remove_task(task)
