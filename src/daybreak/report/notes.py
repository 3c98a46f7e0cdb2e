"""What pages of runs and of studies say alike."""

FLOPS_NOTE = (
    "FLOPs are counted by nanoGPT's convention (PaLM, appendix B): 6 N + 12 layers × width × row length a token, N "
    "being the parameters that are multiplied."
)
