"""What is compared, on which sizes, budgets and grids: all of it chosen before running, and published.

A *setting* is all that a peer (nanoGPT's code, or transformers' GPT2LMHeadModel with Trainer) is told. *Stock* peers
have the settings of nanoGPT's CPU command. *Tuned* peers start from a guess; one field after the other tries its other
values in short runs that are scored on the last 5 % of the training text, never on the scored split. Both peers get the
same grids. After first runs, on 2026-11-22, budgets that were far too short for a peer were left out, and the searches
of row b shortened, since they took hours; targets and scored splits were never changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

Shape = tuple[int, int, int]  # layers, heads, dim
SMALL, MEDIUM, LARGE = (4, 4, 128), (6, 6, 192), (6, 8, 256)


@dataclass(frozen=True)
class Setting:
    """What a peer trains.

    Attributes:
        batch: rows of `context` tokens in a step.
        final: the learning rate at the end, as a share of `lr`, at the end of half a cosine.
        warmup: share of the steps.
        precision: bf16 is autocast, which only Trainer has on a CPU.
        evaluations: of nanoGPT's own, each 20 batches of both splits, as its CPU command makes them; divides the steps.
    """

    shape: Shape
    context: int
    batch: int
    lr: float
    beta2: float = 0.99
    final: float = 0.1
    warmup: float = 0.05
    precision: str = "fp32"
    evaluations: int = 1


@dataclass(frozen=True)
class Search:
    """Trials of `seconds` each, from process start: along each axis in turn all its values."""

    seconds: float
    axes: Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Race:
    """Time to a loss. Budgets ascend; a contestant runs the next only where the median of the one before missed.

    Attributes:
        ours: recipes and their budgets; `overrides` are for all of them.
        stock_budgets: of both peers, with `stock`.
        tuned_budgets: of both peers, with what tuning came to.
    """

    target: float
    row: int
    ours: Mapping[str, tuple[str, ...]]
    overrides: tuple[str, ...]
    stock: Setting
    stock_budgets: tuple[str, ...]
    first_guess: Setting
    tuned_budgets: tuple[str, ...]
    search: Search


@dataclass(frozen=True)
class Compression:
    """Bits per byte after budgets of wall-clock, start-up counted.

    Attributes:
        budgets: ascending, each with the search for the peers' settings; it starts from what the one before came to.
    """

    budgets: Mapping[str, Search]
    ours: tuple[str, ...]
    overrides: tuple[str, ...]
    tokenizer: str
    validation: float
    stock: Setting
    first_guess: Setting


@dataclass(frozen=True)
class Throughput:
    """Equal work: forward, backward and update of the same shape."""

    shape: Shape
    context: int
    batch: int
    steps: Mapping[int, int]  # by vocabulary
    rounds: int


@dataclass(frozen=True)
class Protocol:
    seeds: int
    calibration_steps: int
    race: Race
    compression: Compression
    throughput: Throughput
    waiting: Mapping[str, tuple[str, ...]]  # recipes and overrides
    start_up_rounds: int
    sampling: tuple[str, ...]  # options of sampling.py


_STOCK_CHARACTERS = Setting(SMALL, context=64, batch=12, lr=1e-3, evaluations=8)
_STOCK_WIKIPEDIA = Setting(SMALL, context=256, batch=12, lr=1e-3)

FULL = Protocol(
    seeds=5,
    calibration_steps=40,
    race=Race(
        target=1.92,
        row=64,
        ours={
            "daybreak-char": ("5s", "6s", "7s", "8s", "9s", "10s", "12s", "14s", "16s", "18s", "20s", "24s", "30s"),
            "shakespeare-char-cpu": ("2000steps", "2200steps", "2400steps"),
        },
        overrides=(),
        stock=_STOCK_CHARACTERS,
        stock_budgets=("2000steps", "2200steps", "2400steps"),
        first_guess=replace(_STOCK_CHARACTERS, lr=4e-3, final=0.0, evaluations=1),
        tuned_budgets=("40s", "45s", "50s", "55s", "60s", "70s", "80s", "100s"),
        search=Search(
            45,
            {
                "lr": (2e-3, 4e-3, 8e-3),
                "batch": (8, 12, 20),
                "beta2": (0.95, 0.99),
                "warmup": (0.05, 0.15),
            },
        ),
    ),
    compression=Compression(
        budgets={
            "3m": Search(
                60,
                {
                    "shape": (SMALL, MEDIUM, LARGE),
                    "lr": (2e-3, 4e-3, 8e-3),
                    "batch": (6, 12, 24),
                    "precision": ("fp32", "bf16"),
                },
            ),
            "10m": Search(120, {"shape": (SMALL, MEDIUM, LARGE), "beta2": (0.95, 0.99)}),
        },
        ours=("daybreak-small",),
        overrides=(),
        tokenizer="bpe:4096",
        validation=0.0017,
        stock=_STOCK_WIKIPEDIA,
        first_guess=replace(_STOCK_WIKIPEDIA, lr=4e-3, final=0.0),
    ),
    throughput=Throughput((6, 6, 384), context=256, batch=8, steps={4096: 12, 50304: 8}, rounds=5),
    waiting={
        "shakespeare-char-cpu": ("budget=300steps",),
        "daybreak-char": ("budget=20s",),
        "daybreak-small": ("budget=60s",),
    },
    start_up_rounds=5,
    sampling=(),
)

_TOY_SETTING = Setting((1, 2, 16), context=16, batch=4, lr=1e-2)
_TOY_STEPS = ("8steps",)
_TOY_MODEL = ("model.layers=1", "model.heads=2", "model.dim=16", "schedule.warmup=20%", "evaluation.tokens=1000")
TOY = Protocol(
    seeds=1,
    calibration_steps=4,
    race=Race(
        target=9.0,
        row=16,
        ours={"shakespeare-char-cpu": _TOY_STEPS},
        overrides=_TOY_MODEL,
        stock=replace(_TOY_SETTING, evaluations=2),
        stock_budgets=_TOY_STEPS,
        first_guess=_TOY_SETTING,
        tuned_budgets=_TOY_STEPS,
        search=Search(0.1, {"lr": (1e-2, 2e-2)}),  # too short for more than a step
    ),
    compression=Compression(
        budgets={"8steps": Search(0.1, {"shape": ((1, 2, 16), (2, 2, 16))})},
        ours=("gpt2-tiny",),
        overrides=(*_TOY_MODEL, "batch.tokens=256"),
        tokenizer="bpe:4096",
        validation=0.1,
        stock=_TOY_SETTING,
        first_guess=_TOY_SETTING,
    ),
    throughput=Throughput((1, 2, 16), context=16, batch=2, steps={512: 3}, rounds=1),
    waiting={"shakespeare-char-cpu": ("budget=5steps", *_TOY_MODEL)},
    start_up_rounds=1,
    sampling=("--shape", "1x2x16x64", "--threads", "1", "--tokens", "4", "--rounds", "1"),
)
