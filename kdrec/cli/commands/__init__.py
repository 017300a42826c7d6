"""The subcommands beside Lightning's own: one file each, with ``SUMMARY`` and ``run(args) -> exit code``."""
