"""Bad steps: go on behind those that spiked, from the last good weights; give up where none is good."""

from daybreak.checkpoint import Checkpoint, checkpoint_path, restore
from daybreak.errors import DivergedError
from daybreak.training.parts import Parts
from daybreak.training.spent import Spent
from daybreak.training.state import State


def require_a_good_step(parts: Parts) -> None:
    """Raises DivergedError if too many steps in a row were not finite."""
    if parts.guard.skipped_in_a_row < parts.guard.config.most_skipped:
        return
    step = _agreed_step(parts, _newest(parts))
    raise DivergedError(
        f"{parts.guard.skipped_in_a_row} steps in a row had a loss or gradient that is not finite. "
        f"{_last_good(parts, step)} with --accept-changes and a lower optimizer.lr, or execution.precision=fp32"
    )


def _newest(parts: Parts) -> Checkpoint | None:
    return parts.checkpoints.newest() if parts.ranks.first else None


def _agreed_step(parts: Parts, checkpoint: Checkpoint | None) -> int | None:
    """The step of the first rank's checkpoint, on every rank; None if there is none."""
    step = int(parts.ranks.of_first(-1 if checkpoint is None else checkpoint.step)[0])
    return None if step < 0 else step


def _last_good(parts: Parts, step: int | None) -> str:
    if step is None:
        return "There is no checkpoint yet. Begin anew"
    return f"The last good checkpoint is {checkpoint_path(parts.checkpoints.folder, step)}. Go on from it"


def roll_back(parts: Parts, spent: Spent, loss: float) -> None:
    """Weights and optimizer as in the last checkpoint; neither place nor budget, so the bad windows are passed by."""
    guard, ranks = parts.guard, parts.ranks
    checkpoint = _newest(parts)
    step = _agreed_step(parts, checkpoint)
    if guard.rollbacks_in_a_row >= guard.config.most_rollbacks:
        raise DivergedError(
            f"the loss spiked {guard.rollbacks_in_a_row} times, each within {guard.config.spike_window} good steps of "
            f"the one before. {_last_good(parts, step)} with --accept-changes and a lower optimizer.lr"
        )
    if step is not None:
        restore(checkpoint, parts.model, parts.optimizers, ranks)
        # What the weights of then had seen, since later losses are not theirs.
        guard.losses = ranks.share(lambda: State.read(checkpoint).guard.losses if checkpoint is not None else [])
    back = "no checkpoint yet, so only the step is skipped" if step is None else f"back to step {step:,}"
    line = f"warning: loss {loss:.4f} of step {spent.steps + 1:,} is a spike; {back}, and on behind its windows"
    parts.metrics.event("rollback", {"step": spent.steps + 1, "loss": loss, "back_to": step}, line)
