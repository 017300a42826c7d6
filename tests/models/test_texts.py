import io

import numpy as np
import pytest
import torch

from kdrec.models.texts import pack, unpack


@pytest.mark.parametrize("texts", [["a"], ["", "é", "", "日本", "a b\n", "x" * 300], ["10", "9"]])
def test_written_and_read(texts: list[str]) -> None:
    file = io.BytesIO()
    torch.save(pack(np.array(texts)), file)
    file.seek(0)
    assert unpack(torch.load(file, weights_only=True)) == texts


def test_against_the_bytes_of_each() -> None:
    texts = [chr(0x400 + number % 64) * (number % 7) + str(number) for number in range(500)]
    packed = pack(np.array(texts))
    assert bytes(packed["bytes"].tolist()).decode() == "".join(texts)
    assert packed["ends"].diff(prepend=torch.zeros(1, dtype=torch.int64)).tolist() == [len(t.encode()) for t in texts]
