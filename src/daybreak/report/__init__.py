"""A run, several runs or a study as one page of pictures and tables."""
