"""Where a run's time and memory go."""
