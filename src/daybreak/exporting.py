"""A run as a folder of Hugging Face's transformers, compared with the run before it gets its name."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from daybreak.data.shards import Corpus
from daybreak.errors import UserError
from daybreak.evaluate.results import Figure, TaskResult, shown, spoken
from daybreak.evaluate.task_choice import TaskChoice
from daybreak.exchange.card import Card, Measured
from daybreak.exchange.carriers import carrier_of
from daybreak.exchange.check import model_of, require_transformers
from daybreak.exchange.own_class import OWN
from daybreak.exchange.write import Written, write_model
from daybreak.files import require_text, whole_folder, write_bytes
from daybreak.finite import or_nan
from daybreak.identity import read_identity
from daybreak.model.gpt import count_parameters
from daybreak.recipe import Recipe
from daybreak.run import Run, load


def export(
    run: Path | str,
    folder: Path | str,
    *,
    license: str | None = None,
    evaluate: bool = False,
    tasks: TaskChoice | None = None,
) -> Written:
    """Write a folder that transformers loads: configuration, tensors, tokenizer, generation settings, model card.

    Args:
        folder: it appears only when transformers has computed the same logits from it.
        license: for the card, as the hub calls it; none unless given.
        evaluate: measure the loss on the whole validation split for the card, not the part that training measured.
        tasks: benchmarks for the card, besides those that were measured in training.

    Raises:
        UserError: there is no such run, `folder` exists, transformers is missing, or it computes something else.
    """
    folder = Path(folder)
    require_text(folder)
    if folder.exists():
        raise UserError(f"{folder} exists already; choose another folder, or delete it to export again")
    require_transformers()
    trained = load(run)
    measured = [*_losses(trained, whole=evaluate), *_benchmarks(trained, tasks)]
    model = model_of(trained.recipe.model, trained.checkpoint.weights())
    with whole_folder(folder) as aside:
        written = write_model(aside, model, trained.tokenizer)
        card = _card(trained, folder.resolve().name, written, measured, license)
        write_bytes(aside / "README.md", card.text().encode())
    return written


def _card(run: Run, name: str, written: Written, measured: list[Measured], license: str | None) -> Card:
    recipe, model = run.recipe, run.recipe.model
    carrier, _ = carrier_of(model)
    spent = run.spent
    state = "" if run.finished else ", which it has not spent yet"
    facts = {
        "Recipe": f"{recipe.name}: {recipe.description}" if recipe.description else recipe.name,
        "Class": written.architecture,
        "Parameters": f"{count_parameters(model):,}",
        "Size": f"{model.layers} layers of {model.dim}, {model.heads} heads",
        "Context": f"{model.context:,} tokens",
        "Tokenizer": f"{run.tokenizer.name}, {run.tokenizer.vocab_size:,} ids",
        "Data": "; ".join(_data(run)) or "unknown",
        "Budget": f"{recipe.budget}{state}",
        "Spent": f"{spent.steps:,} steps, {spent.tokens:,} tokens, {spent.flops:.2e} FLOPs, "
        f"{spent.elapsed_seconds / 3600:.2f} hours",
        "Machine": f"{run.execution.device}, {run.execution.precision}, torch {run.execution.torch_version}",
    }
    return Card(
        name=name,
        summary=f"A GPT of {count_parameters(model) / 1e6:,.1f} million parameters, trained with Daybreak.",
        architecture=written.architecture,
        model_type=carrier.model_type,
        travels=carrier is OWN,
        agreement=str(written.agreement),
        facts=facts,
        recipe=_without_places(recipe).to_toml(),
        measured=measured,
        license=license,
    )


def _without_places(recipe: Recipe) -> Recipe:
    """The recipe with the names of its corpora and its source in place of their paths, which are nobody's business."""
    names = [Path(place).name for place in recipe.data.places]
    data = recipe.data.lying_at(names) if names else recipe.data
    init = recipe.init if recipe.init is None else recipe.init.without_place()
    return recipe.model_copy(update={"data": data, "init": init})


def _data(run: Run) -> Iterator[str]:
    """What it was trained on: what the corpora say of themselves where they still lie, and their identities."""
    identity = read_identity(run.path)
    if "imported" in identity:
        yield f"that of {identity['imported']['source']}"
        return
    identities = [source["identity"] for source in identity.get("mixture", [{"identity": identity.get("corpus")}])]
    for place, its in zip(run.recipe.data.places, identities, strict=False):
        try:
            split = Corpus.open_unverified(Path(place)).split("train")
            size = f", {split.tokens:,} tokens, documents: {split.documents:,}"
        except UserError:
            size = ""
        yield f"{Path(place).name}{size}, identity {str(its)[:12]}"


def _losses(run: Run, *, whole: bool) -> Iterator[Measured]:
    """Loss and bits per byte on the validation split, at the end of training or now."""
    if whole:
        found = run.evaluate()
        yield from _loss("the whole validation split", found.loss, found.bits_per_byte, found.tokens)
    elif run.result is not None and run.result["validation"]["loss"] is not None:
        end = run.result["validation"]
        yield from _loss("part of the validation split", end["loss"], or_nan(end["bits_per_byte"]), end.get("tokens"))


def _loss(on: str, loss: float, bits: float, tokens: int | None) -> Iterator[Measured]:
    counted = "" if tokens is None else f"{tokens:,} tokens"
    yield Measured(on, "loss", loss, f"{loss:.4f} nats a token", "", counted)
    if bits == bits:  # text that stands for no bytes has none
        yield Measured(on, "bits per byte", bits, f"{bits:.4f}", "", counted)


def _benchmarks(run: Run, choice: TaskChoice | None) -> Iterator[Measured]:
    """Those of the last step that had some, then those that are asked for now."""
    asked = [] if choice is None else list(run.evaluate_tasks(choice).tasks)
    names = {task.name for task in asked}
    for record in run.metrics("tasks")[-1:]:
        for name, figures in record["results"].items():
            if name not in names:
                yield from _figures(name, _with_errors(figures), f"at step {record['step']:,}")
    for task in asked:
        yield from _figures(task.name, task.figures, _on(task))


def _on(task: TaskResult) -> str:
    return f"{task.items:,} items, {task.shots} shots, version {task.version}"


def _with_errors(recorded: dict[str, Any]) -> dict[str, Figure]:
    """Of a record in metrics.jsonl."""
    return {
        name: Figure(or_nan(value), recorded.get(f"{name}_stderr"))
        for name, value in recorded.items()
        if not name.endswith("_stderr")
    }


def _figures(name: str, figures: Mapping[str, Figure], on: str) -> Iterator[Measured]:
    for metric, figure in figures.items():
        error = "" if figure.standard_error is None else shown(metric, figure.standard_error)
        yield Measured(name, spoken(metric), figure.value, shown(metric, figure.value), error, on)
