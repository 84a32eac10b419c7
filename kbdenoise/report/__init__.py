"""Pictures and summaries for the eye."""
