"""What does `kdrec recommend` cost, process and all, beside a process that only imports torch?

python benchmarks/recommend_start.py checkpoints/NAME/RUN/best.ckpt

Both are started in turn; the ratio of the medians is printed.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from kdrec.models import checkpoint


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    user = checkpoint.read(options.checkpoint)["kdrec"]["user_ids"][0]
    recommend = ["-m", "kdrec", "recommend", "--ckpt_path", str(options.checkpoint), "--user", user]
    commands = {"import torch": ["-c", "import torch"], "kdrec recommend": recommend}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(options.rounds):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - start)
    plain, whole = (statistics.median(spent) for spent in seconds.values())
    for name, spent in seconds.items():
        print(f"{name:<16}{statistics.median(spent):.2f} s (median of {options.rounds})")
    print(f"ratio           {whole / plain:.2f}")


if __name__ == "__main__":
    main()
