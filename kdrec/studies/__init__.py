"""Studies: a grid of fits, run once each, and what they say together."""
