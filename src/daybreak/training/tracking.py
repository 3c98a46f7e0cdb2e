"""Tracking: a run's records on their way to trackers, each of which is a process that the run never waits for."""

import json
import netrc
import os
import re
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, final
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from daybreak.configuration import Configuration
from daybreak.duration import Duration, IntervalField, Unit
from daybreak.errors import UserError
from daybreak.files import write_bytes
from daybreak.progress import say
from daybreak.training.spent import Spent, is_due
from daybreak.training.trackers import Assignment, TrackerKind

_MOST_WAITING = 1 << 24  # bytes that a tracker may be behind
_PATIENCE = 20.0  # seconds for all trackers to end, together
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
_ELSEWHERE = re.compile(r"TRACKIO_|SPACE|HF_")  # would make trackio send what it is to keep


def _split(value: Any) -> Any:
    return [kind.strip() for kind in value.split(",") if kind.strip()] if isinstance(value, str) else value


@final
class TrackingConfig(Configuration):
    """Which trackers a run's records are sent to, besides `metrics.jsonl`.

    Attributes:
        kinds: of trackers, as `["tensorboard", "wandb"]`, or as text `tensorboard, wandb`.
        project: under which trackio and W&B put the run; the run has the name of its folder.
        every: how often a training record is sent; records of other kinds always are.
    """

    kinds: Annotated[tuple[TrackerKind, ...], BeforeValidator(_split)] = ()
    project: str = Field(default="daybreak", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    every: IntervalField = Duration(1, Unit.SECONDS)


@final
class Tracking:
    """Sends records on to trackers. No failure of one is felt by the run: it is said once.

    Args:
        every: how often a training record is sent.
    """

    def __init__(self, every: Duration | None, trackers: Sequence["TrackerProcess"]) -> None:
        self._every, self._trackers, self._before = every, trackers, Spent()

    def send(self, record: Mapping[str, Any], line: bytes) -> None:
        """Send a record, unless it is one of many.

        Args:
            line: the record as it stands in `metrics.jsonl`.
        """
        if self._trackers and (record["kind"] != "train" or self._is_due(record)):
            for tracker in self._trackers:
                tracker.send(line)

    def close(self) -> None:
        """Let trackers end; one that does not is ended."""
        deadline = time.monotonic() + _PATIENCE
        for tracker in self._trackers:
            tracker.finish(deadline)
        for tracker in self._trackers:
            tracker.wait(deadline)

    def _is_due(self, record: Mapping[str, Any]) -> bool:
        after = Spent(
            steps=record["step"],
            tokens=record["tokens"],
            elapsed_seconds=record["elapsed_seconds"],
            progress=record["progress"] + record["progress_share"],
        )
        before, self._before = self._before, after
        return is_due(self._every, before, after)


@final
class TrackerProcess:
    """A tracker in a process of its own, which is given lines and never waited for.

    Args:
        environment: of the process.
    """

    def __init__(self, assignment: Assignment, environment: Mapping[str, str]) -> None:
        self.kind, self._waiting, self._lost = assignment.kind, bytearray(), False
        self._key = environment.get("WANDB_API_KEY") or None
        words = [sys.executable, "-m", "daybreak.training.trackers"]
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        try:
            # In a session of its own, or Ctrl-C would reach it before what is still to be sent.
            self.process = subprocess.Popen(
                words, stdin=pipe, stdout=nowhere, stderr=pipe, env=dict(environment), start_new_session=True
            )
        except OSError as error:
            self._lost = True
            say(f"warning: {self.kind} cannot be started ({error}); the run goes on without it")
            return
        assert self.process.stdin is not None
        self._pipe = self.process.stdin.fileno()
        os.set_blocking(self._pipe, False)
        self.send(json.dumps(asdict(assignment)).encode() + b"\n")

    def send(self, line: bytes) -> None:
        """Hand over as much as the process takes now, and keep the rest."""
        if self._lost:
            return
        self._waiting += line
        self._push()
        if len(self._waiting) > _MOST_WAITING:
            self._give_up("it takes nothing any more")

    def finish(self, deadline: float) -> None:
        """Hand over the rest, and say that nothing follows."""
        while not self._lost and self._waiting and time.monotonic() < deadline:
            select.select([], [self._pipe], [], 0.1)
            self._push()
        if not self._lost:
            assert self.process.stdin is not None
            with suppress(OSError):
                self.process.stdin.close()

    def wait(self, deadline: float) -> None:
        """Until it has ended, or is out of time."""
        if self._lost:
            return
        try:
            code = self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._give_up(f"it did not end within {_PATIENCE:.0f} s")
        else:
            if code:
                self._give_up(self._said())

    def _push(self) -> None:
        try:
            while self._waiting:
                written = os.write(self._pipe, self._waiting[: 1 << 16])
                del self._waiting[:written]
        except BlockingIOError:
            pass
        except OSError:  # it has ended
            self._give_up(self._said())

    def _give_up(self, why: str) -> None:
        self._lost = True
        self._waiting.clear()
        self.process.kill()
        say(f"warning: {self.kind}: {why}; the run goes on without it")

    def _said(self) -> str:
        """Why the process ended, in its own words."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(1.0)
        assert self.process.stderr is not None
        os.set_blocking(self.process.stderr.fileno(), False)
        said = (self.process.stderr.read() or b"").decode(errors="replace").strip()
        said = said.splitlines()[-1] if said else "it ended"
        return said if self._key is None else said.replace(self._key, "***")


NO_TRACKING = Tracking(None, ())


def require_installed(config: TrackingConfig) -> None:
    """Raises UserError for a tracker whose package is not installed."""
    # A folder of this name, as trackers make them, is found too, but it is no package.
    missing = [kind for kind in config.kinds if (spec := find_spec(kind)) is None or spec.origin is None]
    if missing:
        raise UserError(f"tracking.kinds = {', '.join(missing)} needs a package: pip install 'daybreak[track]'")


def start_tracking(config: TrackingConfig, run: Path, recipe: Mapping[str, Any], behind: int, tracked: int) -> Tracking:
    """Start the trackers of a run, and say where they write.

    Args:
        recipe: what was resolved.
        behind: the step that is gone on from.
        tracked: the highest step of an earlier sitting.
    """
    if not config.kinds:
        return NO_TRACKING
    processes, identity = [], _identity(run, anew=not tracked)
    for kind in dict.fromkeys(config.kinds):
        environment = _environment(kind, run)
        mode = _wandb_mode(os.environ)
        if kind == "wandb" and mode == "disabled":
            say("wandb: not tracked, since WANDB_MODE=disabled")
            continue
        say(_where(kind, run, environment, mode))
        assignment = Assignment(
            kind=kind,
            folder=str((run / kind).absolute()),
            project=config.project,
            name=run.absolute().name,
            identity=identity,
            recipe=recipe,
            behind=behind,
            tracked=tracked,
            offline=mode == "offline",
        )
        processes.append(TrackerProcess(assignment, environment))
    return Tracking(config.every, processes)


def _identity(run: Path, *, anew: bool) -> str:
    """What trackers know a run by, whatever its folder is called; kept in the folder."""
    path, drawn = run / "tracking-id", secrets.token_hex(8)
    try:
        if not anew and path.exists() and re.fullmatch("[0-9a-f]{16}", kept := path.read_text(errors="replace")):
            return kept
        write_bytes(path, drawn.encode())
    except (OSError, UserError) as error:
        say(f"warning: {path} cannot be kept ({error}); trackers will take what goes on later for another run")
    return drawn


def _environment(kind: TrackerKind, run: Path) -> dict[str, str]:
    """What a tracker may know of this process's environment: no secret but, for W&B, its own."""
    kept = {name: value for name, value in os.environ.items() if not _SECRET.search(name)}
    match kind:
        case "tensorboard":
            return kept
        case "trackio":
            folder = os.environ.get("TRACKIO_DIR") or str((run / "trackio").absolute())
            kept = {name: value for name, value in kept.items() if not _ELSEWHERE.match(name)}
            return kept | {"TRACKIO_DIR": folder, "HF_HUB_OFFLINE": "1"}
        case "wandb":
            mode = _wandb_mode(os.environ)
            own = {name: value for name, value in os.environ.items() if name.startswith("WANDB_") and mode == "online"}
            cache = os.environ.get("WANDB_CACHE_DIR") or str((run / kind / "cache").absolute())
            return kept | own | {"WANDB_ERROR_REPORTING": "false", "WANDB_CACHE_DIR": cache}


def _wandb_mode(environment: Mapping[str, str]) -> str:
    """`online` where somebody is logged in, or asked for it; else `offline`, so that nobody is asked for an account."""
    asked = environment.get("WANDB_MODE", "").strip().lower()
    if asked in ("offline", "dryrun"):
        return "offline"
    if asked == "disabled" or environment.get("WANDB_DISABLED", "").strip().lower() in ("1", "true"):
        return "disabled"
    return "online" if asked or environment.get("WANDB_API_KEY") or _is_logged_in(environment) else "offline"


def _is_logged_in(environment: Mapping[str, str]) -> bool:
    """Whether `wandb login` was here."""
    host = urlsplit(environment.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    path = Path(environment.get("NETRC") or Path.home() / ".netrc")
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _where(kind: TrackerKind, run: Path, environment: Mapping[str, str], mode: str) -> str:
    """One line for the person: where a tracker writes, and how to look at it."""
    match kind:
        case "tensorboard":
            return f"tracked: tensorboard --logdir {run / kind}"
        case "trackio":
            return f"tracked: TRACKIO_DIR={environment['TRACKIO_DIR']} trackio show"
        case "wandb" if mode == "offline":
            why = f"WANDB_MODE={environment['WANDB_MODE']}" if environment.get("WANDB_MODE") else "nobody is logged in"
            return f"tracked by wandb offline ({why}): wandb sync {run / kind}/offline-run-*"
        case "wandb":
            return f"tracked online by wandb, and in {run / kind}"
