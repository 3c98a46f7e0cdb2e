"""What a checkpoint holds beside tensors: how far a run is, and what its guard has seen."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self, final

from pydantic import TypeAdapter, ValidationError

from daybreak.checkpoint import Checkpoint
from daybreak.configuration import Size
from daybreak.errors import UserError
from daybreak.training.early_stopping import Standstill, StandstillRecord
from daybreak.training.guard import Guard, GuardRecord
from daybreak.training.spent import Spent


@final
@dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
        micro_batch: as last used; memory may have made it smaller than was chosen.
        owes_validation: a stop cut the evaluation of this step short.
        standstill: of the validation loss.
    """

    spent: Spent
    guard: GuardRecord
    micro_batch: Size
    owes_validation: bool
    standstill: StandstillRecord = field(default_factory=StandstillRecord)

    @classmethod
    def of(cls, spent: Spent, guard: Guard, micro_batch: int, *, owes_validation: bool, standstill: Standstill) -> Self:
        return cls(spent, guard.record(), micro_batch, owes_validation, standstill.record)

    @classmethod
    def read(cls, checkpoint: Checkpoint) -> "State":
        """Raises UserError if a checkpoint's state cannot be that of its step."""
        state = cls.from_json(checkpoint.state, str(checkpoint.path / "state.json"))
        if state.spent.steps != checkpoint.step:
            raise UserError(
                f"{checkpoint.path / 'state.json'} is that of step {state.spent.steps:,}; delete the folder"
            )
        return state

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> "State":
        try:
            return _STATE.validate_json(json.dumps(dict(content)), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{where} holds what cannot be: {key}: {first['msg'].lower()}; delete its folder") from None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


_STATE = TypeAdapter(State)
