"""FLOPs of training, by nanoGPT's convention (PaLM, appendix B).

6 N + 12 L H Q T a token: N parameters that are multiplied (tables that are only looked up are not, a tied
embedding is), L layers, H heads of size Q, T tokens in a row. What windows and `prediction.share` spare is not
subtracted, what is recomputed not added.
"""

from daybreak.model.gpt import ModelConfig, count_multiplied


def flops_per_token(model: ModelConfig, length: int) -> float:
    """FLOPs to train on one token in rows of `length` tokens, forward and backward."""
    return 6.0 * count_multiplied(model) + 12.0 * model.layers * model.dim * length
