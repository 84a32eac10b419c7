"""Core ML packages for Apple devices: forms for the Neural Engine, conversion, and its check."""
