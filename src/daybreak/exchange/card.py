"""The model card: a README.md with a YAML head, as the Hugging Face hub reads it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

CAN_RUN_CODE = "trust_remote_code=True"


@final
@dataclass(frozen=True)
class Measured:
    """A figure of an evaluation, as people read it.

    Attributes:
        what: what was measured, as `lambada_openai`.
        metric: as `accuracy`.
        value: in the metric's own unit, a share where it is shown in percent.
        shown: the same for people.
        standard_error: the same for people; empty where there is none.
        on: how much of what, as `5,153 items`.
    """

    what: str
    metric: str
    value: float
    shown: str
    standard_error: str
    on: str


@final
@dataclass(frozen=True)
class Card:
    """What there is to say of an exported model.

    Attributes:
        name: of the model.
        summary: one sentence.
        architecture: the class of transformers.
        travels: code lies beside the weights, which the user must trust.
        agreement: how far its logits were from ours.
        facts: what it is and how it came to be, each a line of the table.
        measured: what it came to.
        recipe: the whole of it, as TOML.
        license: as the hub calls it; None leaves it to the person.
    """

    name: str
    summary: str
    architecture: str
    model_type: str
    travels: bool
    agreement: str
    facts: Mapping[str, str]
    recipe: str
    measured: Sequence[Measured] = field(default_factory=tuple)
    license: str | None = None

    def text(self) -> str:
        """The whole file."""
        parts = (self._head(), self._use(), self._facts(), self._evaluation(), self._recipe())
        return "\n\n".join(part for part in parts if part) + "\n"

    def _head(self) -> str:
        front: dict[str, Any] = {
            "library_name": "transformers",
            "pipeline_tag": "text-generation",
            "tags": sorted({"daybreak", self.model_type}),
            **({} if self.license is None else {"license": self.license}),
            **({"model-index": [self._index()]} if self.measured else {}),
        }
        lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()]
        return "\n".join(("---", *lines, "---", "", f"# {self.name}", "", self.summary))

    def _index(self) -> dict[str, Any]:
        """The figures in the form that the hub shows."""
        results = [
            {
                "task": {"type": "text-generation"},
                "dataset": {"type": figure.what.replace(" ", "_"), "name": figure.what},
                "metrics": [{"type": figure.metric.replace(" ", "_"), "value": figure.value, "name": figure.metric}],
            }
            for figure in self.measured
        ]
        return {"name": self.name, "results": results}

    def _use(self) -> str:
        trusting = f", {CAN_RUN_CODE}" if self.travels else ""
        # AutoTokenizer would look for the model's code first.
        tokenizer = "PreTrainedTokenizerFast" if self.travels else "AutoTokenizer"
        warning = (
            "No class of transformers can be this model, so its own code lies beside it (`modeling_daybreak.py`). "
            "Read it before you let it run. It keeps no cache: each token costs the whole text.\n\n"
            if self.travels
            else ""
        )
        return (
            f"{warning}```python\n"
            "import torch\n"
            f"from transformers import AutoModelForCausalLM, {tokenizer}\n\n"
            f'tokenizer = {tokenizer}.from_pretrained("{self.name}")\n'
            f'model = AutoModelForCausalLM.from_pretrained("{self.name}"{trusting})\n'
            "begin = tokenizer.bos_token_id  # each document of its training began with it\n"
            'ids = tokenizer("Once upon a time", return_tensors="pt").input_ids\n'
            "ids = torch.cat((torch.tensor([[begin]]), ids), dim=1)\n"
            "print(tokenizer.decode(model.generate(ids, max_new_tokens=100, do_sample=True, top_k=50)[0]))\n"
            "```\n\n"
            f"When it was exported, `{self.architecture}` of transformers was compared with the model as trained, "
            f"both in fp32: {self.agreement}."
        )

    def _facts(self) -> str:
        rows = [f"| {name} | {_cell(value)} |" for name, value in self.facts.items()]
        return "\n".join(("## What it is", "", "| | |", "| --- | --- |", *rows))

    def _evaluation(self) -> str:
        if not self.measured:
            return ""
        rows = [
            f"| {_cell(f.what)} | {f.metric} | {f.shown} | {f.standard_error or '–'} | {f.on} |" for f in self.measured
        ]
        header = ("| on | metric | value | standard error | of |", "| --- | --- | ---: | ---: | --- |")
        return "\n".join(("## Evaluation", "", *header, *rows))

    def _recipe(self) -> str:
        return f"## Recipe\n\nTrained with Daybreak.\n\n```toml\n{self.recipe.strip()}\n```"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
