"""A plan as text for the terminal."""
