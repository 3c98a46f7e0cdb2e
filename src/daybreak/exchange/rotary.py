"""Rotary positions in the settings of transformers, which newer versions write in another place than older ones."""

from typing import Any

from daybreak.exchange.carrier import Settings
from daybreak.exchange.pieces import MisfitError
from daybreak.model.gpt import ModelConfig
from daybreak.model.position import RotaryPositionConfig


def rotary_settings(config: ModelConfig) -> dict[str, Any]:
    """In both places."""
    assert isinstance(config.position, RotaryPositionConfig)
    base = config.position.base
    return {"rope_theta": base, "rope_parameters": {"rope_theta": base, "rope_type": "default"}}


def read_rotary(settings: Settings, *, share: float = 1.0, base: str = "rope_theta") -> dict[str, Any]:
    """Our position.

    Args:
        share: of each head that is turned where the settings do not say.
        base: what older versions call it.

    Raises:
        MisfitError: a part of each head is turned, or the angles are stretched for longer contexts.
    """
    new, old = settings.get("rope_parameters") or {}, settings.get("rope_scaling") or {}
    for kind in (new.get("rope_type", "default"), old.get("rope_type", old.get("type", "default"))):
        if kind != "default":
            raise MisfitError(f"its rotary positions are stretched ({kind})")
    turned: Any = share
    for name in ("partial_rotary_factor", "rotary_pct"):
        turned = new.get(name, settings.get(name, turned))
    if turned != 1.0:
        raise MisfitError(f"it turns a share of {turned} of each head, ours all of it")
    theta: Any = new.get("rope_theta", settings.get(base, settings.get("rope_theta", 10_000.0)))
    return {"kind": "rotary", "base": float(theta)}
