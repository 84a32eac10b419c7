"""The architectures, their table, their weights on disk and what they cost."""
