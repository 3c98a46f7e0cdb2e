"""From text to windows of tokens: sources, tokenizers, shards, order, batches."""
