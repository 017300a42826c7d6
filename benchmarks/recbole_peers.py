"""RecBole's models with RecBole's defaults on exactly kdrec's leave-one-out split of MovieLens-100k.

    python -m pip install recbole==1.2.1 'pandas<3' psutil
    python benchmarks/recbole_peers.py BPR NeuMF LightGCN WideDeep DeepFM BERT4Rec

One line of JSON for each model: metrics of validation and test by full ranking, of the epoch that is best on validation
NDCG@10. The split is handed over as a log whose times are places in a user's history, training pairs first, so that
RecBole's own leave-one-out cuts it as kdrec did. What RecBole 1.2.1, of numpy 1 and scipy 1.11, misses in newer ones is
put back here. The data is fetched, or found in data/ or $KDREC_DATA.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from published import clock
from scipy import sparse

from kdrec.data.movielens import MovieLens100K

NAME = "ml100k-loo"
OLD_NUMPY = {"bool8": np.bool_, "float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}
FEATURES = {
    "user": {"age": "token", "gender": "token", "occupation": "token"},
    "item": {"genres": "token_seq", "year": "token"},
}


def put_back() -> None:
    """Give numpy, scipy and torch what RecBole 1.2.1 expects of them."""
    for kind in (bool, int, float, object, complex, str):
        if kind.__name__ not in vars(np):
            setattr(np, kind.__name__, kind)
    for name, kind in {"long": int, "unicode": str, **OLD_NUMPY}.items():
        if name not in vars(np):
            setattr(np, name, kind)
    if not hasattr(sparse.dok_matrix, "_update"):
        sparse.dok_matrix._update = lambda matrix, entries: matrix._dict.update(entries)
    load = torch.load
    torch.load = lambda *args, **options: load(*args, **{**options, "weights_only": False})  # its own checkpoints


def speed_up() -> None:
    """Spare RecBole two costs that change no number beyond rounding: they are half of a step of its BERT4Rec."""
    import recbole.model.sequential_recommender  # noqa: F401  one of its models turns anomaly detection on for all
    from recbole.model.layers import FeedForward

    torch.autograd.set_detect_anomaly(False)
    FeedForward.gelu = lambda self, inputs: torch.nn.functional.gelu(inputs)  # the same formula, in one kernel


def write_data(folder: Path) -> None:
    """Write kdrec's split and tables of features in RecBole's format, with raw ids."""
    data = MovieLens100K()
    data.prepare_data()
    split = data.split
    parts = []
    for place, log in enumerate((split.train, split.valid, split.test)):
        times = np.zeros(len(log)) if log.timestamps is None else log.timestamps
        columns = {"user_id:token": log.user_ids[log.users], "item_id:token": log.item_ids[log.items]}
        parts.append(pd.DataFrame(columns | {"part": place, "time": times}))
    frame = pd.concat(parts).sort_values(["user_id:token", "part", "time"], kind="stable")
    frame["rating:float"] = 1.0
    frame["timestamp:float"] = frame.groupby("user_id:token").cumcount().astype(float)
    frame.drop(columns=["part", "time"]).to_csv(folder / f"{NAME}.inter", sep="\t", index=False)
    train = split.train
    for kind, ids, table in (
        ("user", train.user_ids, train.user_features),
        ("item", train.item_ids, train.item_features),
    ):
        assert table is not None
        table = table.assign(genres=table["genres"].str.replace("|", " ")) if kind == "item" else table
        table = table.rename(columns={name: f"{name}:{what}" for name, what in FEATURES[kind].items()})
        table.insert(0, f"{kind}_id:token", ids)
        table.to_csv(folder / f"{NAME}.{kind}", sep="\t", index=False)


def run(model: str, folder: Path, epochs: int, seed: int) -> dict[str, Any]:
    """Train and rank one of RecBole's models."""
    from recbole.quick_start import run_recbole

    config: dict[str, Any] = {
        "data_path": str(folder.parent), "dataset": NAME, "checkpoint_dir": str(folder / "saved"), "seed": seed,
        "epochs": epochs, "show_progress": False, "state": "ERROR", "gpu_id": "", "use_gpu": False,
        "metrics": ["Recall", "NDCG"], "topk": [10, 20, 50], "valid_metric": "NDCG@10",
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]},
    }  # fmt: skip
    if model == "BERT4Rec":
        config["train_neg_sample_args"] = None
    if model in ("WideDeep", "DeepFM"):
        config["train_neg_sample_args"] = {
            "distribution": "uniform",
            "sample_num": 1,
        }  # else it wants ratings as labels
        config["load_col"] |= {kind: [f"{kind}_id", *columns] for kind, columns in FEATURES.items()}
    start = clock()
    with mock.patch.object(sys, "argv", sys.argv[:1]):  # it reads options from there
        found = run_recbole(model=model, config_dict=config)
    return {
        "model": model, "seed": seed, "seconds": round(clock() - start),
        "validation": dict(found["best_valid_result"]), "test": dict(found["test_result"]),
    }  # fmt: skip


def main() -> None:
    """Run the models that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="RecBole's names")
    parser.add_argument("--epochs", type=int, default=300, help="at most; RecBole stops after 10 without a gain")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    put_back()
    speed_up()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / NAME
        folder.mkdir()
        write_data(folder)
        for model in options.models:
            print(json.dumps(run(model, folder, options.epochs, options.seed), default=float), flush=True)


if __name__ == "__main__":
    main()
