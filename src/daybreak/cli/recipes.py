"""daybreak recipes."""

from typing import Annotated, Any

import typer

from daybreak.cli import completing
from daybreak.cli.json_output import print_json


def recipes(
    name: Annotated[
        str | None, typer.Argument(autocompletion=completing.recipes, help="Print this recipe, resolved, as TOML.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """List the recipes, or print one.

    Example: daybreak recipes crammed-gpt2
    """
    from daybreak.family import DEEPEST, member_name
    from daybreak.recipe import Recipe, recipe_names

    if name is not None and not as_json:
        print(Recipe.load(name).to_toml(), end="")
        return
    if name is not None:
        recipe = Recipe.load(name)
        print_json({**_facts(recipe), "recipe": recipe.model_dump(mode="json")})
        return
    facts = [_facts(Recipe.load(each)) for each in recipe_names()]
    if as_json:
        print_json(facts)
        return
    _print_table(facts)
    print(
        f"{member_name(1)} to {member_name(DEEPEST)}\n  One family, the depth its one dial; daybreak train auto chooses"
    )


def _facts(recipe: Any) -> dict[str, Any]:
    """What a person would compare."""
    from daybreak.model.gpt import count_parameters
    from daybreak.training.flops import flops_per_token

    model = recipe.model
    return {
        "name": recipe.name,
        "parameters": count_parameters(model),
        "layers": model.layers,
        "dim": model.dim,
        "heads": model.heads,
        "context": model.context,
        "vocab_size": model.vocab_size,
        "tokenizer": recipe.data.tokenizer,
        "budget": str(recipe.budget),
        "tokens_per_step": recipe.batch.tokens,
        "optimizer": recipe.optimizer.kind,
        "lr": recipe.optimizer.lr,
        "flops_per_token": flops_per_token(model, recipe.row_length),
        "description": recipe.description,
    }


def _print_table(facts: list[dict[str, Any]]) -> None:
    print(f"{'':<20} {'params':>7} {'layers x dim':>12} {'context':>7} {'tokens/step':>11} {'lr':>7}  budget")
    for fact in facts:
        shape = f"{fact['layers']} x {fact['dim']}"
        print(
            f"{fact['name']:<20} {_short(fact['parameters']):>7} {shape:>12} {fact['context']:>7} "
            f"{fact['tokens_per_step']:>11,} {fact['lr']:>7g}  {fact['budget']}\n  {fact['description']}"
        )


def _short(number: int) -> str:
    scale, suffix = (1e9, "B") if number >= 1e9 else (1e6, "M") if number >= 1e6 else (1e3, "k")
    return f"{number / scale:.3g}{suffix}"
