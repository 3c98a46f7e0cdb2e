"""What a study's folder holds of its plan, and whether a plan is that of the folder."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from daybreak.compose import choose_execution
from daybreak.data.reading import Reading
from daybreak.errors import UserError
from daybreak.files import read_sealed, write_sealed
from daybreak.hardware import device_name
from daybreak.recipe import Recipe
from daybreak.study.design import BASE, Design
from daybreak.study.plan import Plan
from daybreak.study.results import FORMAT, PACES, STUDY


def write_or_compare(plan: Plan) -> None:
    """Describe a new study in its folder; or see that the folder's is the same.

    Raises:
        UserError: it holds another study, or one that cannot go on here.
    """
    path, described = plan.out / STUDY, _described(plan)
    if not path.exists() or not _has_begun(plan.out):
        write_sealed(path, described)
        return
    before = read_sealed(path)
    if before.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {before.get('format')}, this version goes on with {FORMAT}; use the one that began it"
        )
    was, now = _parsed(before), _parsed(described)
    differing = [key for key in now if was.get(key) != now[key]]
    if differing == ["design"] and was["design"].model_copy(update={"seeds": now["design"].seeds}) == now["design"]:
        raise UserError(
            f"{plan.out} holds this study with seeds {list(was['design'].seeds)}: more of them, once results are "
            "known, would make chance look like a finding. Choose fresh seeds, and another --out"
        )
    if differing and set(differing) <= {"torch", "machine"}:
        raise UserError(
            f"{plan.out} was begun with torch {was['torch']} on {was['machine']}, this is torch {now['torch']} on "
            f"{now['machine']}: its trials would not be alike; go on there, or choose another --out"
        )
    if differing:
        raise UserError(f"{plan.out} holds another study: {', '.join(differing)} differ; choose another --out")


def _has_begun(out: Path) -> bool:
    """Whether anything was measured or made, which another study would mix with its own."""
    return any((out / made).exists() for made in (PACES, "tuning", "trials"))


def _described(plan: Plan) -> dict[str, Any]:
    """What must be the same when a study goes on."""
    validation = plan.design.validation
    device = torch.device(choose_execution(plan.recipes[BASE]).device)
    return {
        "format": FORMAT,
        "design": plan.design.model_dump(mode="json", by_alias=True),
        "variants": [variant.model_dump(mode="json") for variant in plan.variants],
        "recipes": {name: recipe.model_dump(mode="json") for name, recipe in plan.recipes.items()},
        "text": {name: reading.described() for name, reading in plan.readings.items()},
        "validation": None if validation is None else _text_of(plan, Path(validation)),
        "tokenizer": plan.readings[BASE].tokenizer.identity,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {device_name(device)}",
    }


def _text_of(plan: Plan, validation: Path) -> dict[str, Any]:
    return Reading.open(plan.recipes[BASE].with_data(validation).data).described()


def _parsed(described: Mapping[str, Any]) -> dict[str, Any]:
    """With what a later version adds at its default, so that it is no difference."""
    recipes = {name: Recipe.model_validate(content) for name, content in described["recipes"].items()}
    return {**described, "design": Design.of(described["design"], STUDY), "recipes": recipes}
