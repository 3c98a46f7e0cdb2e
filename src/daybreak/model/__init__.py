"""The model and its parts. Each part's configuration stands in the part's own file."""
