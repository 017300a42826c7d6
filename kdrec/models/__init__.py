"""Architectures (one file each), ranking losses, and the self-contained checkpoint."""
