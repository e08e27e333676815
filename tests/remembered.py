"""Exact answers that many tests ask for, computed once in a run: in memory, and on disk for its other workers."""

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Remembered:
    """A function that is asked once for each key.

    Args:
        function: what is remembered.
        key_of: its arguments -> all that the answer depends on, with one `repr` in every process.
        folder: of the answers on disk, shared by the workers of a run.
    """

    def __init__(self, function: Callable[..., Any], key_of: Callable[..., Any], folder: Path):
        self.function, self.key_of, self.folder = function, key_of, folder
        self.known: dict[str, Any] = {}

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """The answer."""
        key = repr((self.function.__module__, self.function.__qualname__, self.key_of(*arguments, **options)))
        if key not in self.known:
            file = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.pickle"
            if not file.is_file():  # two workers may both find nothing, and then write the same
                own = file.with_suffix(f".{os.getpid()}")
                own.write_bytes(pickle.dumps(self.function(*arguments, **options)))
                own.replace(file)
            self.known[key] = pickle.loads(file.read_bytes())
        return self.known[key]
