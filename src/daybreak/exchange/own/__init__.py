"""The two files that travel with a model that no class of transformers can be. They import nothing of Daybreak."""
