"""Next tokens from a model."""
