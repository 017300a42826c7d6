"""The one exception that means: what the user gave cannot be used."""


class InputError(ValueError):
    """Something the user gave is wrong; the message is one sentence that says what, where and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """
