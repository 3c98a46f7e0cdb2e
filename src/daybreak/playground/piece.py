from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Piece:
    text: str
    log_probability: float
