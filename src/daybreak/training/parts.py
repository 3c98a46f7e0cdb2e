"""What a training run is made of."""

from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from daybreak.data.batches import Batches
from daybreak.distributed import Ranks
from daybreak.evaluate.in_training import TaskEvaluation
from daybreak.evaluate.loss import MixtureValidation, Validation
from daybreak.hardware import PrecisionName
from daybreak.model.gpt import GPT
from daybreak.sampling.sampler import Sampler
from daybreak.saving import Checkpoints
from daybreak.training.budget import Budget, Clock
from daybreak.training.diagnostics import Diagnostics
from daybreak.training.early_stopping import Standstill
from daybreak.training.guard import Guard
from daybreak.training.metrics import Metrics
from daybreak.training.optimizer import Optimizer
from daybreak.training.outlook import Outlook
from daybreak.training.schedule import Schedule
from daybreak.training.signals import StopRequest


@final
@dataclass(frozen=True)
class Parts:
    """What a training run is made of.

    Attributes:
        model: as this rank holds it.
        forward: the model's training loss; its backward pass brings the gradients of all ranks together.
        tasks: benchmarks; None where the recipe asks for none.
        peak_flops: FLOP/s of all devices that utilisation is a share of; None if it is not known.
    """

    model: GPT
    forward: nn.Module
    optimizers: tuple[torch.optim.Optimizer, ...]
    batches: Batches
    budget: Budget
    outlook: Outlook
    schedule: Schedule
    optimization: Optimizer
    guard: Guard
    standstill: Standstill
    validation: Validation | MixtureValidation
    diagnostics: Diagnostics
    sampler: Sampler
    tasks: TaskEvaluation | None
    checkpoints: Checkpoints
    metrics: Metrics
    ranks: Ranks
    stop: StopRequest
    clock: Clock
    device: torch.device
    precision: PrecisionName
    peak_flops: float | None
