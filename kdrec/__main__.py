"""``python -m kdrec`` is the command ``kdrec``."""

from kdrec.cli.main import entry_point

if __name__ == "__main__":
    entry_point()
