"""From restored pages to a checked, scored submission file."""
