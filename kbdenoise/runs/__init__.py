"""Run folders: what training leaves behind, and how it is found again."""
