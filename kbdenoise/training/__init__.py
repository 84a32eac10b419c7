"""Train a model, save it, and go on exactly where it stopped."""
