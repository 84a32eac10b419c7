"""Packages of a trained model for other engines, each checked before it appears."""
