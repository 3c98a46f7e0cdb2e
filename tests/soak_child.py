"""`soak_child.py POINT OCCURRENCE -- WORDS…`: the command line, in a process that kills itself at a named point.

What is patched are the standard functions that write, not Daybreak's own.
"""

import builtins
import io
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

_ASIDE = "checkpoints/.step-*.partial"


@dataclass(frozen=True)
class Point:
    """Before, halfway through, or after an operation on a path that ends in this form.

    Attributes:
        needs: the point that a kill must have stopped at just before, so that this one is reached.
    """

    when: Literal["before", "halfway", "after"]
    operation: Literal["save tensors", "open", "write", "fsync", "rename", "remove"]
    form: str
    needs: str | None = None


# Of a beginning, in the order in which they are reached.
BEGINNING = {
    "before-tokenizer": Point("before", "open", ".tokenizer.json.partial"),
    "half-identity": Point("halfway", "write", ".identity.json.partial"),
    "before-recipe": Point("before", "open", ".recipe.toml.partial"),
    "recipe-not-renamed": Point("before", "rename", ".recipe.toml.partial"),
    "half-execution": Point("halfway", "write", ".execution.json.partial"),
}
SAVING = {
    "half-model": Point("halfway", "save tensors", f"{_ASIDE}/model.safetensors"),
    "before-optimizer": Point("before", "save tensors", f"{_ASIDE}/optimizer.safetensors"),
    "before-state": Point("before", "open", f"{_ASIDE}/.state.json.partial"),
    "before-manifest": Point("before", "open", f"{_ASIDE}/.manifest.json.partial"),
    "half-manifest": Point("halfway", "write", f"{_ASIDE}/.manifest.json.partial"),
    "before-fsync": Point("before", "fsync", f"{_ASIDE}/model.safetensors"),
    "before-folder-fsync": Point("before", "fsync", _ASIDE),
    "before-rename": Point("before", "rename", _ASIDE),
    "half-swept": Point("halfway", "remove", _ASIDE, needs="before-rename"),
    "after-rename": Point("after", "rename", _ASIDE),
    "before-drop": Point("before", "rename", "checkpoints/step-????????"),
    "after-drop-rename": Point("after", "rename", "checkpoints/step-????????"),
    "half-dropped": Point("halfway", "remove", "checkpoints/.step-*.dropped"),
}
ELSEWHERE = {
    "half-metrics-line": Point("halfway", "write", "metrics.jsonl"),
    "before-finished": Point("before", "open", ".finished.json.partial"),
    "half-finished": Point("halfway", "write", ".finished.json.partial"),
}
POINTS = BEGINNING | SAVING | ELSEWHERE


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    while True:  # other threads must do no more while the signal is on its way
        time.sleep(1)


class Killer:
    """Kills this process where `point` is reached for the `occurrence`-th time."""

    def __init__(self, point: Point, occurrence: int) -> None:
        self.point, self.left = point, occurrence
        self.paths: dict[int, str] = {}  # of what is open

    def here(self, when: str, operation: str, path: Any) -> bool:
        if (when, operation) != (self.point.when, self.point.operation) or not Path(path).match(self.point.form):
            return False
        self.left -= 1
        return self.left == 0

    def around(self, operation: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, whose first argument is a path, with a possible death before and behind it."""

        def patched(path: Any, *args: Any, **options: Any) -> Any:
            if self.here("before", operation, path):
                die()
            result = function(path, *args, **options)
            if self.here("after", operation, path):
                die()
            return result

        return patched

    def patch(self) -> None:
        import safetensors.torch

        raw_open, os_open, fsync, rmtree, save = io.open, os.open, os.fsync, shutil.rmtree, safetensors.torch.save_file

        def open_file(path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if "r" not in mode and self.here("before", "open", path):
                die()
            file = raw_open(path, mode, *args, **options)
            self.paths[file.fileno()] = str(path)
            if self.point.operation == "write" and "b" in mode and "r" not in mode:
                whole_write = file.write

                def write(content: bytes) -> int:
                    if self.here("halfway", "write", path):
                        whole_write(content[: len(content) // 2])
                        file.flush()
                        die()
                    return int(whole_write(content))

                file.write = write  # type: ignore[method-assign,assignment]
            return file

        def open_descriptor(path: Any, *args: Any, **options: Any) -> int:
            descriptor = os_open(path, *args, **options)
            self.paths[descriptor] = str(path)
            return descriptor

        def sync(descriptor: int) -> None:
            if self.here("before", "fsync", self.paths.get(descriptor, "")):
                die()
            fsync(descriptor)

        def remove(path: Any, *args: Any, **options: Any) -> None:
            if Path(path).is_dir() and self.here("halfway", "remove", path):
                files = sorted(Path(path).iterdir())
                for file in files[: len(files) // 2]:
                    file.unlink()
                die()
            rmtree(path, *args, **options)

        def save_tensors(tensors: Any, path: Any, *args: Any, **options: Any) -> None:
            if self.here("before", "save tensors", path):
                die()
            save(tensors, path, *args, **options)
            if self.here("halfway", "save tensors", path):
                os.truncate(path, Path(path).stat().st_size // 2)
                die()

        io.open = builtins.open = open_file  # type: ignore[assignment]
        os.open, os.fsync, shutil.rmtree = open_descriptor, sync, remove  # type: ignore[assignment]
        os.rename = self.around("rename", os.rename)
        os.replace = self.around("rename", os.replace)
        safetensors.torch.save_file = save_tensors


def main() -> None:
    point, occurrence, dashes, *words = sys.argv[1:]
    assert dashes == "--"
    sys.argv = ["daybreak", *words]
    from daybreak import cli

    Killer(POINTS[point], int(occurrence)).patch()
    cli.main()


if __name__ == "__main__":
    main()
