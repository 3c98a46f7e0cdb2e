"""transformers' GPT2LMHeadModel with Trainer: train on a peer's folder, and the loss of what was saved.

python benchmarks/peers/transformers_trainer.py train --data DATA --out OUT --steps 2000 --seed 1 --setting JSON
python benchmarks/peers/transformers_trainer.py score --data DATA --out OUT
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments


class Blocks(Dataset[dict[str, Tensor]]):
    """The text in blocks of the context's length, as Trainer's examples cut it."""

    def __init__(self, path: Path, length: int) -> None:
        tokens = np.fromfile(path, dtype="<u2")
        self.blocks = tokens[: len(tokens) // length * length].reshape(-1, length)

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        block = torch.from_numpy(self.blocks[index].astype(np.int64))
        return {"input_ids": block, "labels": block}


class FirstStep(TrainerCallback):
    """Says when the first step is done, for the measurement of start-up."""

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if state.global_step == 1:
            print("first step done", flush=True)


def build_model(shape: tuple[int, int, int], context: int, vocab_size: int) -> GPT2LMHeadModel:
    """GPT-2 of a shape, without dropout, as nanoGPT's CPU command has it."""
    layers, heads, dim = shape
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=context,
        n_embd=dim,
        n_layer=layers,
        n_head=heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )
    return GPT2LMHeadModel(config)


def arguments(setting: dict[str, Any], steps: int, seed: int, out: Path) -> TrainingArguments:
    """What Trainer is told; the rest is as it ships, its fused AdamW among them."""
    return TrainingArguments(
        output_dir=str(out),
        use_cpu=True,
        max_steps=steps,
        per_device_train_batch_size=setting["batch"],
        learning_rate=setting["lr"],
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": setting["final"]},
        warmup_steps=round(setting["warmup"] * steps),
        adam_beta2=setting["beta2"],
        weight_decay=0.1,
        bf16=setting["precision"] == "bf16",
        seed=seed,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def train(data: Path, out: Path, steps: int, seed: int, setting: dict[str, Any]) -> None:
    facts = json.loads((data / "facts.json").read_text())
    torch.manual_seed(seed)
    model = build_model(setting["shape"], setting["context"], facts["vocab_size"])
    blocks = Blocks(data / "train.bin", setting["context"])
    trainer = Trainer(model, arguments(setting, steps, seed, out), train_dataset=blocks, callbacks=[FirstStep()])
    done = trainer.train()
    trainer.save_model(str(out))
    print(json.dumps({"train_seconds": done.metrics["train_runtime"], "steps": done.global_step}))


def score_saved(data: Path, out: Path) -> dict[str, float]:
    from scoring import score

    model = GPT2LMHeadModel.from_pretrained(out).eval()
    return score(lambda tokens: model(tokens).logits, data, model.config.n_positions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "score"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--setting", type=json.loads)
    asked = parser.parse_args()
    if asked.what == "train":
        train(asked.data, asked.out, asked.steps, asked.seed, asked.setting)
    else:
        print(json.dumps(score_saved(asked.data, asked.out)))


if __name__ == "__main__":
    main()
