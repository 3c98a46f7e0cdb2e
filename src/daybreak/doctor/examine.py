"""All checks, one after another. Each does what it speaks of rather than ask whether it could be done."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from daybreak.doctor.finding import Finding, in_a_line
from daybreak.doctor.versions import versions

Check = Callable[[], Finding]


def examine(folder: Path, announce: Callable[[str], object] = lambda name: None) -> Iterator[tuple[str, Finding]]:
    """Check this machine, one named finding at a time; takes about half a minute and leaves nothing behind.

    Args:
        folder: where runs would be written; it need not exist.
        announce: is told the name of each check before it begins.
    """
    announce("versions")
    finding = versions()
    yield "versions", finding
    if finding.broken:
        return  # all that follows needs the packages
    for name, check in _checks(folder).items():
        announce(name)
        yield name, _examined(check, vital=name == "training")


def _checks(folder: Path) -> dict[str, Check]:
    """All but the first; imported late, since they need the packages that it looks for."""
    from daybreak.doctor import compute, machine, storage, tried
    from daybreak.hardware import choose_device

    with warnings.catch_warnings(action="ignore"):
        device = choose_device("auto")
    return {
        "cpu": machine.cpu,
        "device": partial(compute.gpus, device),
        "training": partial(compute.training, device),
        "bf16": partial(compute.bf16, device),
        "kernels": partial(compute.kernels, device),
        "compile": partial(tried.compilation, device),
        "memory": partial(machine.memory, device),
        "disk": partial(storage.disk, folder),
        "open files": storage.open_files,
        "ranks": tried.ranks,
        "tokenizer": tried.tokenizer,
    }


def _examined(check: Check, *, vital: bool) -> Finding:
    try:
        with warnings.catch_warnings(action="ignore"):  # what matters in them is found
            return check()
    except Exception as error:  # whatever it is: the other checks still have something to say
        costs = "nothing trains on this device; if it is a GPU, try execution.device=cpu" if vital else "not known"
        return Finding(f"Failed: {in_a_line(error)}.", costs, broken=vital)
