"""What can be compared: checkpoints and ONNX exports, each with its sizes, its protocol and its lists."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdrec.deploy import artefact
from kdrec.deploy.latency import Lister
from kdrec.errors import InputError
from kdrec.evaluation.ranking import CatalogueRanking, top_k
from kdrec.models import checkpoint as files
from kdrec.models.base import Recommender
from kdrec.models.described import rebuild, require_known_classes


class Contender(ABC):
    """A model that can be compared with others.

    Attributes:
        path: File or folder.
        protocol: Data set, split and kind of ranking that it was made for.
        data_digest: Of its training data.
        parameters: Numbers that training found.
        bytes_of_model: Of the deployed model.
        bytes_on_disk: Of file or folder, with all that is there beside the model.
    """

    path: Path
    protocol: str
    data_digest: str
    parameters: int
    bytes_of_model: int
    bytes_on_disk: int

    @abstractmethod
    def together(self, ranking: CatalogueRanking, k: int) -> Lister:
        """Return what lists the k best items of many users, without those that the ranking hides."""

    @abstractmethod
    def alone(self, ranking: CatalogueRanking, k: int) -> Lister:
        """Return what lists the same for a single user, the fastest way there is."""


class Checkpoint(Contender):
    """A checkpoint, whose model torch runs.

    Args:
        path: The file.

    Attributes:
        section: What it says of itself.

    Raises:
        InputError: As `kdrec.models.checkpoint.restore`.
    """

    def __init__(self, path: Path) -> None:
        content = files.read(path)
        self.path = path
        self.section: dict[str, Any] = content["kdrec"]
        # frozen, LightGCN propagates once and not for each list
        self.recommender = files.restore(path, content).requires_grad_(False)
        self.protocol, self.data_digest = self.section["protocol"], self.section["data_digest"]
        self.parameters, self.bytes_of_model = self.recommender.num_parameters(), self.recommender.num_bytes()
        self.bytes_on_disk = path.stat().st_size

    @torch.no_grad()
    def together(self, ranking: CatalogueRanking, k: int) -> Lister:
        """As `Contender.together`, as an evaluation does it."""
        catalogue = self.recommender.encode_catalogue()
        return lambda users: ranking.top_items(self.recommender, users, k, catalogue)

    @torch.no_grad()
    def alone(self, ranking: CatalogueRanking, k: int) -> Lister:
        """As `Contender.alone`, as ``kdrec recommend`` does it."""
        catalogue = self.recommender.encode_catalogue()
        offsets, items = ranking.hidden.offsets.tolist(), ranking.hidden.items

        def listed(users: Tensor) -> Tensor:
            user = int(users)
            scores = self.recommender.score_all(users, catalogue)
            return top_k(scores.index_fill_(1, items[offsets[user] : offsets[user + 1]], -torch.inf), k)[1]

        return listed


class OnnxExport(Contender):
    """A folder of ``kdrec export --format onnx``, which onnxruntime runs on one thread.

    Args:
        path: The folder.

    Raises:
        InputError: If it is another export or none, a part of it is missing or damaged, or onnxruntime is missing.
    """

    def __init__(self, path: Path) -> None:
        said = artefact.check(path)
        if said.get("kind") != "onnx":
            raise InputError(f"{path} is an export to {said.get('kind')}; only checkpoints and ONNX exports compare.")
        self.path = path
        self._session = _session(path / "users.onnx")
        try:
            self.protocol, self.data_digest, model = said["protocol"], said["data_digest"], said["model"]
            require_known_classes(model, path, Recommender)
            with torch.device("meta"):  # to count is all that is wanted
                recommender = rebuild(model)
                recommender.build(said["num_users"], said["num_items"])
        except InputError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError):  # whatever was edited by hand
            raise InputError(f"{path} is damaged; make the export again with `kdrec export`.") from None
        self.parameters = recommender.num_parameters()
        sizes = {file.name: file.stat().st_size for file in path.iterdir()}  # whatever the manifest says of them
        beside = (artefact.MANIFEST, artefact.VOCABULARY, artefact.SEEN)
        self.bytes_of_model = sum(sizes[name] for name in sizes if name not in beside)
        self.bytes_on_disk = sum(sizes.values())

    def together(self, ranking: CatalogueRanking, k: int) -> Lister:
        """As `Contender.together`."""
        if ranking.num_candidates is not None:
            raise InputError(f"{self.path} ranks the whole catalogue, and {self.protocol} does not; leave it out.")
        hidden = ranking.hidden

        def listed(users: Tensor) -> Tensor:
            counts = hidden.counts[users].unsqueeze(1)
            places = torch.arange(max(1, int(counts.max())))
            seen = torch.full((len(users), len(places)), -1)
            seen[places < counts] = hidden.of(users)[1]
            return self._run(users.numpy(), seen.numpy(), k, hidden.num_items)

        return listed

    def alone(self, ranking: CatalogueRanking, k: int) -> Lister:
        """As `Contender.alone`."""
        offsets, items = ranking.hidden.offsets.tolist(), ranking.hidden.items.numpy()
        num_items = ranking.hidden.num_items

        def listed(users: Tensor) -> Tensor:
            user = int(users)
            return self._run(users.numpy(), items[None, offsets[user] : offsets[user + 1]], k, num_items)

        return listed

    def _run(self, users: np.ndarray, seen: np.ndarray, k: int, num_items: int) -> Tensor:
        try:
            items, _ = self._session.run(["items", "scores"], {"users": users, "seen": seen, "k": np.array(k)})
        except Exception:  # onnxruntime's own, of many kinds
            items = None
        if not (
            isinstance(items, np.ndarray)
            and (items.dtype, items.shape) == (np.int64, (len(users), k))
            and ((items >= -1) & (items < num_items)).all()
        ):
            raise InputError(f"{self.path} does not list items as an export does; make it again with `kdrec export`.")
        return torch.from_numpy(items)


def _session(graph: Path) -> Any:
    """Load a graph to be run on one thread."""
    try:
        import onnxruntime  # an extra
    except ImportError:
        raise InputError(f"{graph} needs onnxruntime; install the extra: python -m pip install '.[onnx]'.") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime's own, of many kinds
        raise InputError(
            f"{graph} cannot be loaded by onnxruntime {onnxruntime.__version__}; make the export again."
        ) from None
