"""How long a run's loop waits for its tensors: trains a recipe in this process, with the loader's calls timed.

python benchmarks/waiting.py demo data/stdlib budget=60s      # seconds waited, seconds of training, steps
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from daybreak import Recipe, train
from daybreak.data.batches import Batches, Rows


def main() -> None:
    name, corpus, *overrides = sys.argv[1:]
    waited = 0.0
    step_of = Batches.step

    def timed(batches: Batches, *where: Any, **sizes: Any) -> Iterator[Rows]:
        nonlocal waited
        rows = step_of(batches, *where, **sizes)
        while True:
            began = time.perf_counter()
            following = next(rows, None)
            waited += time.perf_counter() - began
            if following is None:
                return
            yield following

    with tempfile.TemporaryDirectory() as folder, patch.object(Batches, "step", timed):
        spent = train(Recipe.load(name, *overrides), data=corpus, out=Path(folder) / "run").spent
    print(waited, spent.train_seconds, spent.steps)


if __name__ == "__main__":
    main()
