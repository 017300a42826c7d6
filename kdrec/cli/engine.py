"""LightningCLI, taught three things: a config can be a teacher, a checkpoint needs no config, a run ends in a table."""

import argparse
import contextlib
import csv
import importlib
import logging
import pkgutil
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from kdrec.cli import report, runs
from kdrec.cli.messages import explain
from kdrec.cli.teachers import ensure_teacher
from kdrec.data.base import InteractionDataModule
from kdrec.errors import InputError
from kdrec.models import checkpoint as files
from kdrec.training.callbacks import TopItemsWriter
from kdrec.training.distillation import DistillationModule
from kdrec.training.ranking import RankingModule

_DISCOVERED = ("data", "models", "distillation", "training")


def run(args: Sequence[str]) -> int:
    """Run one of LightningCLI's subcommands; ``args[0]`` is its name.

    Returns:
        Exit code: 0 done, 130 interrupted.

    Raises:
        InputError: On bad input of any kind.
    """
    for room in _DISCOVERED:  # so that --help lists every class and short names resolve
        package = importlib.import_module(f"kdrec.{room}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"kdrec.{room}.{module.name}")
    _quieten()
    try:
        KdrecCLI(args)
    except SystemExit as stop:  # --help and --print_config end so
        return stop.code if isinstance(stop.code, int) else 0
    except MisconfigurationException as error:
        raise InputError(" ".join(str(error).split())) from error
    except Interrupted as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 130
    return 0


class Interrupted(Exception):
    """The user stopped a fit; the message says what is kept and how to go on."""


class KdrecCLI(LightningCLI):
    """The four Lightning subcommands, each parser built only when it is asked for.

    Args:
        args: What follows ``kdrec``.
    """

    def __init__(self, args: Sequence[str]) -> None:
        self.requested = args[0]
        self.checkpoint_path: Path | None = None
        self.content: dict[str, Any] = {}
        with contextlib.ExitStack() as stack:
            if self.requested != "fit" and not {"-h", "--help"} & set(args):
                args = self._add_checkpoint(list(args), stack)
            super().__init__(
                RankingModule,
                InteractionDataModule,
                save_config_callback=None,
                seed_everything_default=0,
                trainer_defaults={"max_epochs": 100},
                parser_kwargs={"exit_on_error": False, self.requested: {"exit_on_error": False}},
                subclass_mode_model=True,
                subclass_mode_data=True,
                args=list(args),
                auto_configure_optimizers=False,
            )

    # Parsing

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Only the one that was asked for: building a parser takes time."""
        return {self.requested: LightningCLI.subcommands()[self.requested]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what a run needs beside model, data and trainer; every command takes a fit's config."""
        parser.add_argument("--name", type=str | None, help="Name of the run's folders. Default: the config file's name.")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/ndcg@10",
                "checkpoint.mode": "max",
                "checkpoint.filename": "best",
                "checkpoint.save_last": True,
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
        if self.requested == "predict":
            parser.add_argument("--output", type=str | None, help="CSV to write. Default: predictions/NAME-TIME.csv")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and explain what cannot be parsed."""
        try:
            self.config = parser.parse_args(args)
        except (argparse.ArgumentError, TypeError, ValueError) as error:
            keys = [action.dest for action in self._parser(self.requested)._actions]
            raise InputError(explain(getattr(error, "message", None) or str(error), keys)) from error

    def _parse_ckpt_path(self) -> None:
        """Do nothing: kdrec's checkpoints carry no Lightning hyper-parameters; see `_add_checkpoint`."""

    def _add_checkpoint(self, args: list[str], stack: contextlib.ExitStack) -> list[str]:
        """Choose the checkpoint to use and, where no config is given, put what it says of itself before the options."""
        known = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        known.add_argument("--ckpt_path")
        known.add_argument("-c", "--config")
        known.add_argument("--name")
        given = known.parse_known_args(args[1:])[0]
        name = given.name or (Path(given.config).stem if given.config else None)
        self.checkpoint_path = Path(given.ckpt_path) if given.ckpt_path else runs.newest_checkpoint(name)
        self.content = files.read(self.checkpoint_path)
        if not given.ckpt_path:
            print(f"No --ckpt_path: taking the newest checkpoint, {self.checkpoint_path}")
            args += ["--ckpt_path", str(self.checkpoint_path)]
        if given.config:
            return args
        file = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".yaml"))
        yaml.safe_dump(self._section_config() | {"data": self.content["kdrec"]["data"]}, file)
        file.flush()
        return [args[0], "--config", file.name, *args[1:]]

    def _section_config(self) -> dict[str, Any]:
        """The config of a module that evaluates the checkpoint's model; teacher and losses are of no concern."""
        section = self.content["kdrec"]
        return {
            "model": {
                "class_path": "kdrec.training.ranking.RankingModule",
                "init_args": {"recommender": section["model"], **section["evaluation"]},
            }
        }

    # Building

    def before_instantiate_classes(self) -> None:
        """Lay out the run: for a fit its folders, for the rest the model of the checkpoint."""
        config = self.config[self.requested]
        if self.requested != "fit":
            config.model = None
            self.config = self.parser.parse_object({self.requested: self._section_config()}, self.config)
            self.config[self.requested].trainer.logger = False
            return
        if config.ckpt_path in ("last", "best"):
            config.ckpt_path = str(runs.newest_checkpoint(self.name, f"{config.ckpt_path}.ckpt"))
        if config.ckpt_path:
            files.read(config.ckpt_path)
            print(f"Going on from {config.ckpt_path}")
        folder = Path(config.ckpt_path).parent if config.ckpt_path else runs.new_folder(self.name)
        config.checkpoint.dirpath = str(config.checkpoint.dirpath or folder)
        runs.require_writable(Path(config.checkpoint.dirpath))

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Add the logger and callbacks of the command."""
        config = self.config[self.requested]
        callbacks = self.config_init[self.requested].trainer.callbacks or []
        if self.requested == "fit":
            folder = Path(config.checkpoint.dirpath)
            if config.trainer.logger in (None, True):
                kwargs["logger"] = TensorBoardLogger(
                    str(runs.LOGS), name=self.name, version=folder.name, default_hp_metric=False
                )
            kwargs["callbacks"] = [*callbacks, _RunConfig(self._parser("fit"), config, folder)]
            return super().instantiate_trainer(**kwargs)
        parts = {key: self.config_init[self.requested].trainer[key] for key in config.trainer}
        if self.requested == "predict":
            stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
            output = config.output or f"predictions/{self.name}-{stamp}.csv"
            callbacks = [*callbacks, TopItemsWriter(output)]
        return self.trainer_class(**parts | {"callbacks": callbacks})

    def after_instantiate_classes(self) -> None:
        """If the teacher is a config, turn it into its checkpoint."""
        if not isinstance(self.model, DistillationModule) or self.requested != "fit":
            return
        path = Path(self.model.teacher_path)
        if path.suffix not in (".yaml", ".yml"):
            files.read(path)
            return
        if not path.is_file():
            raise InputError(f"There is no teacher config {path}; give a config file or a checkpoint.")
        overrides = ["--data.init_args.root", str(self.datamodule.root)]
        try:
            config = self._parser("fit").parse_args(["--config", str(path), *overrides])
        except argparse.ArgumentError as error:
            keys = [action.dest for action in self._parser("fit")._actions]
            raise InputError(f"{path}: {explain(error.message, keys)}") from error
        digest = runs.config_digest(self._plain(config))
        train = self.datamodule.split.train
        self.model.teacher_path = str(ensure_teacher(path, digest, train.digest, overrides))

    @property
    def name(self) -> str:
        """The run's name: as given, or the config file's, or the checkpoint's run."""
        config = self.config[self.requested]
        if config.name:
            return config.name
        if self.checkpoint_path:
            return self.checkpoint_path.resolve().parent.parent.name
        if config.config:
            return Path(str(config.config[-1])).stem
        return config.model.class_path.rpartition(".")[2]

    def _plain(self, config: Any) -> dict[str, Any]:
        """A parsed config as plain values."""
        return yaml.safe_load(self._parser(self.requested).dump(config, skip_none=False))

    # Running

    def fit(self, model: RankingModule, datamodule: InteractionDataModule, **options: Any) -> None:
        """Train, then show teacher and student side by side."""
        start = time.monotonic()
        try:
            self.trainer.fit(model, datamodule=datamodule, **options)
        except SystemExit:
            if self.trainer.state.status is TrainerStatus.INTERRUPTED:
                raise Interrupted(self._how_to_resume()) from None
            raise
        if self.trainer.is_global_zero:
            self._report_fit(time.monotonic() - start)

    def validate(self, model: RankingModule, datamodule: InteractionDataModule, **options: Any) -> None:
        """Rank for the validation items and show the metrics."""
        self.trainer.validate(model, datamodule=datamodule, **options | {"verbose": False})
        self._report_ranking("val")

    def test(self, model: RankingModule, datamodule: InteractionDataModule, **options: Any) -> None:
        """Rank for the test items and show the metrics."""
        self.trainer.test(model, datamodule=datamodule, **options | {"verbose": False})
        self._report_ranking("test")

    def predict(self, model: RankingModule, datamodule: InteractionDataModule, **options: Any) -> None:
        """Stream every user's best items to a file."""
        self.trainer.predict(model, datamodule=datamodule, **options | {"return_predictions": False})

    def _how_to_resume(self) -> str:
        last = Path(self.trainer.checkpoint_callback.dirpath or "", "last.ckpt")  # type: ignore[union-attr]
        if not last.is_file():
            return "Stopped before the first epoch was finished; nothing was kept."
        configs = " ".join(f"--config {file}" for file in self.config.fit.config or [])
        return f"Stopped. The last finished epoch is kept in {last}; go on with:\n  kdrec fit {configs} --ckpt_path {last}"

    def _report_fit(self, seconds: float) -> None:
        callback = self.trainer.checkpoint_callback
        best = Path(getattr(callback, "best_model_path", "") or "")
        if not best.is_file():  # --trainer.fast_dev_run and the like save nothing
            return
        section = files.read(best)["kdrec"]
        student = {
            "parameters": self.model.recommender.num_parameters(),
            "metrics": section["metrics"],
            "epochs": f"{section['epochs']} of {self.trainer.current_epoch}",
            "seconds": f"{seconds:.0f}",
        }
        plain = self._plain(self.config.fit)
        record = student | {
            "config_sha256": runs.config_digest(plain),
            "data_digest": section["data_digest"],
            "protocol": section["protocol"],
        }
        runs.write_record(best.parent, record)
        rows = [(self.name, student)]
        if isinstance(self.model, DistillationModule) and self.model.teacher is not None:
            teacher = self.model.teacher
            source = Path(teacher.path)
            told = files.read(source)["kdrec"]
            facts = {"parameters": teacher.recommender.num_parameters(), "metrics": told["metrics"]}
            facts |= {key: value for key, value in runs.read_record(source.parent).items() if key in ("epochs", "seconds")}
            rows.insert(0, (f"teacher {source.parent.parent.name}", facts))
        logs = None
        if isinstance(self.trainer.logger, TensorBoardLogger):
            logs = Path(self.trainer.logger.log_dir)
            best_metrics = {name.replace("val/", "best/"): value for name, value in section["metrics"].items()}
            shown = {name: value for name, value in best_metrics.items() if name.startswith(("best/ndcg", "best/recall@"))}
            chosen = {key: plain[key] for key in ("seed_everything", "model", "data")}
            self.trainer.logger.log_hyperparams(chosen, shown)
            self.trainer.logger.save()
        report.show(
            f"\n{section['protocol']}",
            report.fit_table(rows),
            report.next_steps(best, logs, best.parent / "config.yaml"),
        )

    def _report_ranking(self, stage: str) -> None:
        if not self.trainer.is_global_zero:
            return
        metrics = {
            name.removeprefix(f"{stage}/"): float(value)
            for name, value in self.trainer.callback_metrics.items()
            if name.startswith(f"{stage}/")
        }
        what = "Test" if stage == "test" else "Validation"
        report.show(report.metrics_table(metrics, f"{what} of {self.checkpoint_path}\n{self.model.protocol}"))
        if self.model.num_candidates is not None:
            report.show("Ranked among sampled items: these numbers say little and compare with no full ranking.")
        if output := self.config[self.requested].per_user:
            self._write_per_user(Path(output), stage)

    def _write_per_user(self, path: Path, stage: str) -> None:
        metric = self.model.metrics[stage]
        users, values = metric.per_user
        ids = self.model.train_data.user_ids
        try:
            with open(path, "w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["user", *metric.names])
                writer.writerows([ids[user], *row] for user, row in zip(users.tolist(), values.tolist(), strict=True))
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror}); name another file with --per_user.") from None
        report.show(f"per user    {path}")


class _RunConfig(SaveConfigCallback):
    """Write the resolved config beside the checkpoints."""

    def __init__(self, parser: LightningArgumentParser, config: Any, folder: Path) -> None:
        super().__init__(parser, config, overwrite=True, save_to_log_dir=False)
        self.folder = folder

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """As `SaveConfigCallback.save_config`; in the first process only."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, self.folder / "config.yaml", skip_none=False, overwrite=True)


def _quieten() -> None:
    """Silence what Lightning says that is of no use here; each line with its reason."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)  # devices, tips
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)  # the seed stands in the config
    for message in (
        r".*does not have many workers.*",  # batches are slices of tensors: there is nothing for workers to do
        r".*recommended to use `self.log\(.*sync_dist=True.*",  # metrics are already equal on all ranks
        r".*Checkpoint directory .* exists and is not empty.*",  # a run that is resumed
        r".*You are using the plain ModelCheckpoint callback.*",
    ):
        warnings.filterwarnings("ignore", message)


