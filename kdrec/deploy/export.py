"""From a checkpoint to a folder that is deployed: built, written, compared with torch, and described."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdrec import __version__
from kdrec.deploy import artefact
from kdrec.deploy.compact import QUANTIZATIONS, compact
from kdrec.deploy.formats import format_named
from kdrec.deploy.parity import require_parity
from kdrec.errors import InputError
from kdrec.models import checkpoint as files
from kdrec.models.base import Recommender


@dataclass(frozen=True)
class Export:
    """A finished export.

    Args:
        folder: Where it stands.
        manifest: What its manifest.json says.
        float_bytes: Of the same model before its numbers were rounded.
    """

    folder: Path
    manifest: dict[str, Any]
    float_bytes: int


def export(
    path: Path, kind: str, quantize: str | None = None, output: Path | None = None, force: bool = False, k: int = 10
) -> Export:
    """Export a checkpoint's model.

    Args:
        path: The checkpoint.
        kind: One of `kdrec.deploy.formats.FORMATS`.
        quantize: "int8", "int4" or "fp16"; None keeps the numbers that the model was trained with.
        output: Folder to make. Default: beside the checkpoint.
        force: Whether it replaces an export that stands there.
        k: Length of the lists that are compared, and of a torch program's.

    Raises:
        InputError: If the checkpoint is none, the format cannot hold the model or its package is not installed, the
            folder exists or cannot be written, or what was exported does not recommend what torch recommends. Then
            nothing is kept.
    """
    content = files.read(path)
    output = output or path.with_name("-".join(filter(None, (path.stem, kind, quantize))))
    artefact.require_free(output, force)
    kit = format_named(kind)
    if quantize and not kit.QUANTIZES:
        raise InputError(f"--format {kind} holds float vectors only; leave out --quantize {quantize}.")
    section, recommender = content["kdrec"], files.restore(path, content)
    if not 1 <= k <= recommender.num_items:
        raise InputError(f"k is {k}; it must lie between 1 and the catalogue's {recommender.num_items} items.")
    model = compact(recommender, QUANTIZATIONS[quantize] if quantize else None)
    built = kit.build(model, k)
    with artefact.new_folder(output, force) as folder:
        for name, data in built.items():
            (folder / name).write_bytes(data)
        artefact.write_data(folder, section)
        seen = section["seen"]
        quality: dict[str, Any] = {
            "parity": require_parity(
                model, seen["offsets"], seen["items"].long(), k, lambda *asked: kit.answers(folder, *asked)
            )
        }
        if quantize:
            quality["validation"] = _cost(path, section, recommender, model.recommender)
        said = {
            "kdrec": __version__, "kind": kind, "quantize": quantize, "model": section["model"],
            "num_users": recommender.num_users, "num_items": recommender.num_items, "protocol": section["protocol"],
            "data_digest": section["data_digest"],
            "checkpoint_sha256": files.digest(path), "quality": quality,
        }  # fmt: skip
        manifest = artefact.write_manifest(folder, said)
    return Export(output, manifest, model.recommender.num_bytes())


def _cost(path: Path, section: dict[str, Any], before: Recommender, after: Recommender) -> dict[str, Any]:
    """Rank the validation items by the model before and after its numbers were rounded.

    Returns:
        Means of metric@k under "before" and "after"; or under "not_measured" the reason, such as that the data set is
        not there.
    """
    from kdrec.deploy.dataset import data_of  # here, since it imports lightning
    from kdrec.evaluation.evaluate import evaluate

    try:
        data = data_of(path, section)
    except (OSError, ValueError) as error:  # InputError is a ValueError
        return {"not_measured": str(error).splitlines()[0].rstrip(".")}
    asked = section["evaluation"]
    options = ("val", asked["cutoffs"], asked.get("num_candidates"), data.eval_batch_size)
    return {name: evaluate(model, data.split, *options)[0] for name, model in (("before", before), ("after", after))}
