"""FLOPs of training, by nanoGPT's convention (PaLM, appendix B).

6 N + 12 L H Q T a token: N parameters without the position table, L layers, H heads of size Q, T
tokens in a row. Embedding lookups count as if they were products; recomputation is not counted.
"""

from daybreak.model.gpt import ModelConfig, count_multiplied


def flops_per_token(model: ModelConfig, length: int) -> float:
    """FLOPs to train on one token in rows of `length` tokens, forward and backward."""
    return 6.0 * count_multiplied(model) + 12.0 * model.layers * model.dim * length
