"""daybreak compare."""

from pathlib import Path
from typing import Annotated

import typer


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs; the first one's recipe is the base.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Compare finished runs of equal budget, text and tokenizer, paired by seed. A study makes such runs by itself.

    Example: daybreak compare runs/a-1 runs/a-2 runs/b-1 runs/b-2
    """
    import json
    from dataclasses import asdict

    from daybreak.study.document import finite
    from daybreak.study.runs import compare_runs
    from daybreak.study.table import comparison_table, sentences

    found = compare_runs(runs)
    if as_json:
        groups = [{**asdict(group), "recipe": group.recipe.model_dump(mode="json")} for group in found.groups]
        comparisons = [asdict(each) for each in found.comparisons]
        document = finite({"equal": found.equal, "groups": groups, "comparisons": comparisons})
        print(json.dumps(document, indent=2, allow_nan=False))
        return
    print(f"equal in {found.equal}\n")
    losses = {group.name: group.losses for group in found.groups}
    figures = {group.name: (group.tokens_per_second, None) for group in found.groups}
    for line in comparison_table(found.groups[0].name, losses, found.comparisons, figures):
        print(line)
    print()
    for line in sentences(found.comparisons):
        print(line)
    for group in found.groups[1:]:
        print(f"\n{group.name} differs from {found.groups[0].name} in")
        for change in group.changes:
            print(
                f"  {change.replace(' here, ', f' in {group.name}, ').removesuffix(' there')} in {found.groups[0].name}"
            )
