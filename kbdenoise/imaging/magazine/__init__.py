"""Magazine pages out of nothing: the clean side of synthetic print-and-scan pairs."""
