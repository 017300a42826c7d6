"""Honest ranking: the full catalogue, seen items hidden, every user once."""
