"""From files to training patches: pairs, grouped splits, the decode-once store, summaries."""
