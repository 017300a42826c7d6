"""From files to batches: the one table type, verified sources, splits, sampling and the data modules."""
