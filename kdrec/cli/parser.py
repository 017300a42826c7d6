"""Which options there are, and how they are read."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from kdrec.cli import checkpoints, runs
from kdrec.cli.messages import explain
from kdrec.data.base import InteractionDataModule
from kdrec.errors import InputError, nearest
from kdrec.training.callbacks import BestCheckpoint, PatientStopping
from kdrec.training.ranking import RankingModule

_REFUSALS = (argparse.ArgumentError, TypeError, ValueError, AttributeError, LookupError, RecursionError)


def _said(error: Exception) -> str:
    """Return what a refusal says; PyYAML and jsonargparse stumble over YAML that holds itself, or has wrong tags."""
    if isinstance(error, AttributeError | LookupError | RecursionError):
        return "A config cannot be read: a value is not what its tag says, or holds itself; write it out"
    return getattr(error, "message", None) or str(error)


class CommandLine(LightningCLI):
    """The three Lightning subcommands, each parser built only when it is asked for.

    Args:
        args: What follows ``kdrec``.
    """

    def __init__(self, args: Sequence[str]) -> None:
        self.requested = args[0]
        self.checkpoint_path: Path | None = None
        if self.requested != "fit" and not {"-h", "--help"} & set(args):
            self.checkpoint_path, args = checkpoints.choose(list(args))
        super().__init__(
            RankingModule,
            InteractionDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults={"max_epochs": 100, "enable_model_summary": False},
            parser_kwargs={"exit_on_error": False, self.requested: {"exit_on_error": False}},
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=list(args),
            auto_configure_optimizers=False,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Only the one that was asked for: building a parser takes time."""
        return {self.requested: LightningCLI.subcommands()[self.requested]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what a run needs beside model, data and trainer; every command takes a fit's config."""
        parser.add_argument(
            "--name", type=str | None, help="Name of the run's folders. Default: the config file's name."
        )
        parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
        parser.add_lightning_class_args(PatientStopping, "early_stopping")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/ndcg@10",
                "checkpoint.mode": "max",
                "checkpoint.filename": "best",
                "checkpoint.save_on_train_epoch_end": True,
                "checkpoint.auto_insert_metric_name": False,
                "checkpoint.enable_version_counter": False,
                "early_stopping.monitor": "val/ndcg@10",
                "early_stopping.mode": "max",
                "early_stopping.patience": 10,
            }
        )
        if self.requested in ("validate", "test"):
            parser.add_argument("--per_user", type=str | None, help="Write every user's metrics to this CSV file.")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and explain what cannot be parsed."""
        self._require_whole_options(args)
        try:
            self.config = parser.parse_args(args)
        except _REFUSALS as error:
            keys = [action.dest for action in self._parser(self.requested)._actions]
            raise InputError(explain(_said(error), keys)) from error
        self._require_sound(self.config[self.requested])

    def _require_whole_options(self, args: Sequence[str]) -> None:
        """Refuse a shortened option, which argparse would complete."""
        options = {option for action in self._parser(self.requested)._actions for option in action.option_strings}
        for name in (arg.partition("=")[0] for arg in args if arg.startswith("--")):
            if name not in options and any(option.startswith(name) for option in options):
                raise InputError(f"There is no option {name[2:]!r}; {nearest(name[2:], [o[2:] for o in options])}")

    def _parse_ckpt_path(self) -> None:
        """Do nothing: kdrec's checkpoints carry no Lightning hyper-parameters; see `checkpoints.choose`."""

    @property
    def name(self) -> str:
        """The run's name: as given, or the config file's, or the checkpoint's run."""
        config = self.config[self.requested]
        if config.name:
            return runs.require_name(config.name)
        if self.checkpoint_path:
            return self.checkpoint_path.resolve().parent.parent.name
        if config.config:
            return checkpoints.run_name(Path(str(config.config[-1])))
        return config.model.class_path.rpartition(".")[2]

    def plain(self, config: Any) -> dict[str, Any]:
        """A parsed config as plain values."""
        return yaml.safe_load(self._parser(self.requested).dump(config, skip_none=False, skip_validation=True))

    def parse_fit(self, args: list[str]) -> dict[str, Any]:
        """Parse the options of another fit.

        Raises:
            InputError: If an option is faulty.
        """
        self._require_whole_options(args)
        if unfit := {"-h", "--help", "--print_config"} & set(args):
            raise InputError(f"{' '.join(args[:2])}: {unfit.pop()} cannot stand there; leave it out.")
        try:
            config = self._parser("fit").parse_args(args)
        except _REFUSALS as error:
            keys = [action.dest for action in self._parser("fit")._actions]
            raise InputError(f"{' '.join(args[:2])}: {explain(_said(error), keys)}") from error
        self._require_sound(config)
        return self.plain(config)

    @staticmethod
    def _require_sound(config: Namespace) -> None:
        """Refuse what jsonargparse lets pass: what is no group of options in the place of one, and a seed too large."""
        for key in ("trainer", "checkpoint", "early_stopping"):
            if not isinstance(config[key], Namespace):
                raise InputError(f"{key} must map options to values, and is {str(config[key])[:80]!r}; see --help.")
        if not 0 <= int(config.seed_everything or 0) < 1 << 32:
            raise InputError(f"seed_everything is {config.seed_everything}; it must lie between 0 and {(1 << 32) - 1}.")


class FitParser(CommandLine):
    """Reads the options of ``kdrec fit`` and does nothing with them."""

    def __init__(self) -> None:
        super().__init__(["fit"])

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Wait to be asked, by `parse_fit`."""
        self.config = Namespace(fit=Namespace(seed_everything=False), subcommand="fit")

    def before_instantiate_classes(self) -> None:
        """Do nothing."""

    def instantiate_classes(self) -> None:
        """Do nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Do nothing."""
