"""The disk that runs would be written to, and how many files may be open."""

import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

from daybreak.doctor.finding import Finding, gigabytes, in_a_line
from daybreak.duration import human_seconds
from daybreak.errors import UserError
from daybreak.files import locked, sha256_file, write_bytes

_PROBED_BYTES = 64_000_000
_GPT2_CHECKPOINT = 12 * 124.4e6  # weight and two moments of each parameter, fp32
_SPACE_WANTED = 3 * _GPT2_CHECKPOINT  # two are kept while a third is written
_SLOW_CHECKPOINT_SECONDS = 60
_FILES_WANTED = 200  # a corpus of 10 B tokens; libraries, devices, sockets


def disk(folder: Path) -> Finding:
    """Space and speed where runs would be written: write a file there as a checkpoint is, and read it back."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    content = os.urandom(_PROBED_BYTES)  # nothing that a disk could shrink
    try:
        with tempfile.TemporaryDirectory(prefix=".daybreak-doctor-", dir=existing) as name, locked(Path(name)):
            file = Path(name) / "probe"
            began = time.perf_counter()
            write_bytes(file, content)
            written = time.perf_counter()
            sha256_file(file)
            read = time.perf_counter()
    except (OSError, UserError) as error:
        found = f"{existing}: {_PROBED_BYTES / 1e6:.0f} MB could not be written and locked there: {in_a_line(error)}."
        return Finding(found, "a run cannot be saved there; choose another folder", broken=True)
    seconds = _GPT2_CHECKPOINT * (read - began) / _PROBED_BYTES
    found = (
        f"{existing}: {gigabytes(free)} free; writes {_PROBED_BYTES / 1e6 / (written - began):,.0f} MB/s, "
        f"hashes {_PROBED_BYTES / 1e6 / (read - written):,.0f} MB/s. "
        f"A checkpoint of GPT-2 small ({gigabytes(_GPT2_CHECKPOINT)}) takes about {human_seconds(seconds)}."
    )
    costs = []
    if free < _SPACE_WANTED:
        costs.append(f"GPT-2 small wants {gigabytes(_SPACE_WANTED)}: two checkpoints and the one being written")
    if seconds > _SLOW_CHECKPOINT_SECONDS:
        costs.append("saving is slow: save less often (checkpoint.every=), or write to a disk of this machine")
    return Finding(found, "; ".join(costs))


def open_files() -> Finding:
    """How many files may be open at once: each shard of a corpus is one."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return Finding("As many as the system has.")
    found = f"{limit:,} at once; a corpus has one for each 100 M tokens."
    costs = f"a large corpus cannot be opened; ulimit -n {2 * _FILES_WANTED} is enough for 10 B tokens"
    return Finding(found, costs if limit < _FILES_WANTED else "")
