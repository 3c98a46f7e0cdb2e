"""Training: the loop and what it is given."""
