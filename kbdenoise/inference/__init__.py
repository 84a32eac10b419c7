"""Restore whole pictures with a trained model, and score them."""
