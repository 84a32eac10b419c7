"""What contests are, where they come from, and what they want handed in."""
