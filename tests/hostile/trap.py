"""Nobody imports this module; hostile files name it, and whoever finds it imported has run what a file said."""


class Trap:
    """What a file may ask to be made."""
