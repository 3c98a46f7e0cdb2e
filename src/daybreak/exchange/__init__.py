"""Models in the form of Hugging Face's transformers: out to it, and in from it."""
