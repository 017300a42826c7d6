"""LightningCLI, taught three things: a config can be a teacher, a checkpoint needs no config, a run ends in a table."""

import importlib
import os
import pkgutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import Namespace
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from kdrec.cli import checkpoints, report, runs
from kdrec.cli.messages import explain, is_first_rank, quieten
from kdrec.cli.parser import CommandLine
from kdrec.cli.resume import Start, start_of
from kdrec.cli.teachers import ensure_trained
from kdrec.data.base import InteractionDataModule
from kdrec.distillation.base import Teacher
from kdrec.documents import replacing
from kdrec.errors import InputError, nearest
from kdrec.evaluation.clicks import CLICK_METRICS
from kdrec.evaluation.metrics import LOGGED_METRICS
from kdrec.models import checkpoint as files
from kdrec.models.ensemble import Ensemble
from kdrec.training.callbacks import LastCheckpoint
from kdrec.training.distillation import DistillationModule
from kdrec.training.ranking import RankingModule
from kdrec.training.resuming import WholeFiles

_DISCOVERED = ("data", "models", "distillation", "training")


def run(args: Sequence[str]) -> int:
    """Run one of LightningCLI's subcommands; ``args[0]`` is its name.

    Returns:
        Exit code: 0 done, 130 interrupted.

    Raises:
        InputError: On bad input of any kind.
    """
    discover()
    quieten()
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


def discover() -> None:
    """Import every room whose classes a config may name, so that --help lists them and short names resolve."""
    for room in _DISCOVERED:
        package = importlib.import_module(f"kdrec.{room}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"kdrec.{room}.{module.name}")


class Interrupted(Exception):
    """The user stopped a fit; the message says what is kept and how to go on."""


class KdrecCLI(CommandLine):
    """The commands: from a parsed config to a run, its table and the next step."""

    repeatable: Namespace
    start: Start

    # Building

    def before_instantiate_classes(self) -> None:
        """Lay out the run: for a fit its folders, for the rest the model of the checkpoint."""
        config = self.config[self.requested]
        if self.checkpoint_path:
            checkpoints.require_same_model(self.checkpoint_path, self.plain(config)["model"])
            module = checkpoints.as_module(self.checkpoint_path, vars(config.model.init_args))
            config.model = None
            self.config = self.parser.parse_object({self.requested: {"model": module}}, self.config)
            self.config[self.requested].checkpoint.dirpath = str(self.checkpoint_path.parent)
            if config.get("per_user"):
                report.require_place(Path(config.per_user))
            return
        self.start = start_of(config, self.name)
        self.repeatable = config.clone()  # what config.yaml shall say: a run of its own, not this folder again
        self.repeatable["name"], self.repeatable["ckpt_path"] = self.name, None
        config.ckpt_path = str(self.start.checkpoint) if self.start.checkpoint else None
        config.checkpoint.dirpath = str(self.start.folder)
        if is_first_rank():  # the other ranks are told where by ModelCheckpoint
            runs.require_writable(Path(config.checkpoint.dirpath))

    def instantiate_classes(self) -> None:
        """Build data module, model and trainer; what a constructor refuses is said in its own words."""
        try:
            super().instantiate_classes()
        except (TypeError, ValueError, ImportError) as error:
            cause: BaseException | None = error
            while cause and not isinstance(cause, InputError | MisconfigurationException):
                cause = cause.__cause__ or cause.__context__
            raise cause or InputError(explain(str(error), [])) from error

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Add the logger and callbacks of the command."""
        config = self.config[self.requested]
        callbacks = self.config_init[self.requested].trainer.callbacks or []
        callbacks = list(callbacks) if isinstance(callbacks, list) else [callbacks]
        if self.requested == "fit":
            folder = Path(config.checkpoint.dirpath)
            if config.trainer.logger in (None, True):
                runs.wait_for_order(runs.LOGS / self.name / folder.name)
                kwargs["logger"] = TensorBoardLogger(
                    str(runs.LOGS), name=self.name, version=folder.name, default_hp_metric=False,
                    purge_step=self.start.step,  # hides what was logged after the checkpoint of a run that goes on
                )  # fmt: skip
            callbacks.append(_RunConfig(self._parser("fit"), self.repeatable, folder))
        else:
            kwargs["logger"] = False
        trainer = super().instantiate_trainer(**kwargs, callbacks=callbacks)
        self._require_all_processes(trainer)
        if self.requested == "fit" and trainer.checkpoint_callback:  # after the best one, whose state it holds
            trainer.callbacks.append(LastCheckpoint(config.checkpoint.dirpath))  # type: ignore[attr-defined]
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeFiles()
        return trainer

    def _require_all_processes(self, trainer: L.Trainer) -> None:
        """Refuse to be one of several processes that know nothing of each other, and would write over each other."""
        used = trainer.num_devices * trainer.num_nodes
        started = int(os.environ.get("WORLD_SIZE", used)) if "LOCAL_RANK" in os.environ else used
        if started != used:
            raise InputError(
                f"{started} processes were started, and the trainer is told of {used} ({trainer.num_devices} on each "
                f"of {trainer.num_nodes} machines); give --trainer.devices with the number of processes on a machine, "
                f"and --trainer.num_nodes with the number of machines."
            )

    def after_instantiate_classes(self) -> None:
        """Turn the configs of a teacher and of members into their checkpoints; first is said what else is wrong."""
        if self.checkpoint_path:  # of what shall be ranked; else it would be bound to the data before it is loaded
            self.model.recommender = files.restore(self.checkpoint_path)
            return
        module, recommender = self.model, self.model.recommender
        teacher = [module.teacher_path] if isinstance(module, DistillationModule) else []
        members = recommender.checkpoints if isinstance(recommender, Ensemble) else []
        for role, given in (("teacher", teacher), ("member", members)):  # before anything is fetched
            for path in map(Path, given):
                if not os.path.isfile(path):  # Path.is_file fails at names that cannot be
                    found = "is a folder" if os.path.isdir(path) else "is not there"
                    raise InputError(f"The {role} {path} {found}; give a checkpoint, or the config that makes it.")
        train = self.datamodule.split.train
        module.require_options(train.num_items)
        self._require_monitors()
        if isinstance(recommender, Ensemble):
            recommender.load([self._checkpoint(path, "member") for path in members], train)
        if isinstance(module, DistillationModule):
            module.teacher_path = self._checkpoint(module.teacher_path, "teacher")
            Teacher.load(module.teacher_path, train)

    def _checkpoint(self, path: str, role: str) -> str:
        """Return a checkpoint, or the one that a config makes."""
        if Path(path).suffix not in (".yaml", ".yml"):
            return path
        return str(ensure_trained(Path(path), role, self.parse_fit, self.datamodule))

    def _require_monitors(self) -> None:
        """Refuse to watch a metric of the validation that will never be logged, or to want a high loss."""
        known = [f"val/{name}@{k}" for name in LOGGED_METRICS for k in self.model.cutoffs]
        if self.model.recommender.predicts_clicks:
            known += [f"val/{name}" for name in CLICK_METRICS]
        for key in ("checkpoint", "early_stopping"):
            monitor = self.config.fit[key].monitor
            if str(monitor).startswith("val/") and monitor not in known:
                raise InputError(f"{key}.monitor: there is no metric {monitor!r}; {nearest(monitor, known)}")
            if monitor == "val/logloss" and self.config.fit[key].mode != "min":
                raise InputError(f"{key}.monitor: a lower log-loss is the better one; give {key}.mode: min with it.")

    # Running

    def fit(self, model: RankingModule, datamodule: InteractionDataModule, **options: Any) -> None:
        """Train, then show teacher and student side by side."""
        start = time.monotonic() - self.start.seconds
        try:
            self.trainer.fit(model, datamodule=datamodule, **options)
        except SystemExit:
            if self.trainer.state.status is TrainerStatus.INTERRUPTED:
                raise Interrupted(self._how_to_resume()) from None
            raise
        finally:
            if is_first_rank() and self.repeatable.checkpoint.dirpath is None and self.start.step is None:
                runs.discard_if_empty(Path(self.config.fit.checkpoint.dirpath), runs.LOGS / self.name)
        if self.trainer.is_global_zero:
            report.after_fit(self.name, self.trainer, model, self.plain(self.config.fit), time.monotonic() - start)

    def validate(self, model: RankingModule, datamodule: InteractionDataModule, **options: Any) -> None:
        """Rank for the validation items and show the metrics."""
        self.trainer.validate(model, datamodule=datamodule, **options | {"verbose": False})
        self._report("val")

    def test(self, model: RankingModule, datamodule: InteractionDataModule, **options: Any) -> None:
        """Rank for the test items and show the metrics."""
        self.trainer.test(model, datamodule=datamodule, **options | {"verbose": False})
        self._report("test")

    def _report(self, stage: str) -> None:
        if self.trainer.is_global_zero:
            assert self.checkpoint_path is not None
            report.after_ranking(self.checkpoint_path, self.trainer, self.model, stage)
            if output := self.config[self.requested].per_user:
                report.write_per_user(Path(output), self.model, stage)

    def _how_to_resume(self) -> str:
        last = runs.shown(f"{self.trainer.checkpoint_callback.dirpath}/last.ckpt")  # type: ignore[union-attr]
        if not last.is_file():
            return "Stopped before the first epoch was finished; nothing was kept."
        kept, done = files.read(last)["kdrec"]["epochs"], self.trainer.current_epoch
        return (
            f"Stopped. Of {done} finished epochs {last} holds {kept}; go on with:\n"
            f"  kdrec fit --config {last.parent / 'config.yaml'} --ckpt_path {last}"
        )


class _RunConfig(Callback):
    """Write the resolved config beside the checkpoints, and take back that the run had come to its end."""

    def __init__(self, parser: LightningArgumentParser, config: Any, folder: Path) -> None:
        self.parser = parser
        self.config = config
        self.folder = folder

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Do so in the first process, now that nothing can be refused any more."""
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.folder / "config.yaml") as part:
                self.parser.save(self.config, part, skip_none=False, overwrite=True)
            Path(self.folder, runs.RECORD).unlink(missing_ok=True)
