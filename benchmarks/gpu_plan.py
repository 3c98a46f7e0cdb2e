"""What is run on one GPU within nine minutes, and the same in sizes of seconds for a CPU; chosen before running."""

from collections.abc import Mapping
from dataclasses import dataclass

QUIET = ("evaluation.every=never", "samples.every=never", "checkpoint.every=never")


@dataclass(frozen=True)
class Plan:
    """Sizes, settings and limits.

    Attributes:
        every: settings of every run.
        plain: our `gpt2` recipe as GPT-2 124M, padded.
        stock: its own learning rate and batch, with a warm-up that fits.
        tuned: the best AdamW settings that are known for `target_budget`; `--tuned` adds to them.
        ours: settings of the fast recipe beside its own.
        plain_budget, cold_budget: of the runs that only measure speed.
        target_budget: of the run whose loss is the target, and of the stock one.
        budgets: of the fast recipe, ascending; it is done with the first that reaches the target.
        tuning: settings that `--only tune` tries for `tuning_budget`.
        tests: what pytest is given.
        limits: seconds that each kind of run may take at most.
    """

    every: tuple[str, ...]
    plain: tuple[str, ...]
    stock: tuple[str, ...]
    tuned: tuple[str, ...]
    ours: tuple[str, ...]
    plain_budget: str
    cold_budget: str
    target_budget: str
    budgets: tuple[str, ...]
    tuning: tuple[tuple[str, ...], ...]
    tuning_budget: str
    tests: tuple[str, ...]
    limits: Mapping[str, float]


FULL = Plan(
    every=(*QUIET, "evaluation.tokens=1000000", "execution.precision=bf16", "execution.compile=true"),
    plain=("model.vocab_size=50304", "batch.tokens=524288", "execution.micro_batch=32", "schedule.warmup=5%"),
    stock=("model.vocab_size=50304", "batch.tokens=491520", "execution.micro_batch=32", "schedule.warmup=5%"),
    tuned=(
        "model.vocab_size=50304",
        "batch.tokens=131072",
        "execution.micro_batch=32",
        "optimizer.lr=1.8e-3",
        "schedule.warmup=5%",
        "schedule.final=0",
    ),
    ours=(),
    plain_budget="40steps",
    cold_budget="10steps",
    target_budget="180s",
    budgets=("45s", "72s", "180s"),
    tuning=tuple(
        (f"optimizer.lr={lr}", f"batch.tokens={tokens}")
        for tokens in (65_536, 131_072, 262_144)
        for lr in ("1.2e-3", "1.8e-3", "3e-3")
    ),
    tuning_budget="50s",
    tests=("-m", "gpu", "tests/model", "tests/training/test_probing.py", "tests/test_on_cuda.py"),
    limits={"tests": 200, "plain": 150, "cold": 150, "target": 240, "ours": 240, "tuning": 110},
)

_TOY_SIZES = (
    "model.layers=1",
    "model.heads=2",
    "model.dim=32",
    "model.context=16",
    "data.window=16",
    "data.tokenizer=bytes",
    "batch.tokens=64",
    "model.vocab_size=50304",
    "schedule.warmup=20%",
)
TOY = Plan(
    every=(*QUIET, "evaluation.tokens=100", "execution.device=cpu", "execution.compile=false"),
    plain=_TOY_SIZES,
    stock=_TOY_SIZES,
    tuned=(*_TOY_SIZES, "optimizer.lr=1e-3"),
    ours=_TOY_SIZES,
    plain_budget="4steps",
    cold_budget="2steps",
    target_budget="3steps",
    budgets=("2steps", "3steps"),
    tuning=(("optimizer.lr=1e-3",),),
    tuning_budget="2steps",
    tests=("-m", "gpu", "tests/model"),
    limits={"tests": 60, "plain": 60, "cold": 60, "target": 60, "ours": 60, "tuning": 60},
)
