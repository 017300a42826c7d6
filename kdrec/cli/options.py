"""Options of the commands that are none of LightningCLI's: argparse, with kdrec's way to say what is wrong."""

import argparse
from collections.abc import Sequence

from kdrec.errors import InputError


class Options(argparse.ArgumentParser):
    """A parser of one command.

    Args:
        command: Its name after ``kdrec``.
        description: What --help says first.
        examples: What it says last.
    """

    def __init__(self, command: str, description: str, examples: str) -> None:
        super().__init__(
            f"kdrec {command}", description=description, epilog=examples, allow_abbrev=False, exit_on_error=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip

    def read(self, args: Sequence[str]) -> argparse.Namespace | None:
        """Return the options, or None after --help.

        Raises:
            InputError: If they are faulty.
        """
        try:
            options, unknown = self.parse_known_args(args)
        except argparse.ArgumentError as error:
            raise InputError(f"{str(error)[:1].upper()}{str(error)[1:]}; see {self.prog} --help.") from None
        except SystemExit:  # --help
            return None
        if unknown:
            raise InputError(f"There is no option {unknown[0]!r} of {self.prog}; see {self.prog} --help.")
        return options
