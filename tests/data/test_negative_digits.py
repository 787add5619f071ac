"""The digits in negative, from which the demonstration learns a prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from doubles import load_script
from fozo.data.demo import demo_images
from fozo.eval.datasets.open_split import open_split_data
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def test_they_are_training_and_test_images_of_ten_classes(tmp_path: Path) -> None:
    tool = load_script(ROOT / "tools" / "negative_digits.py")
    (train, labels), (test, _) = demo_images("train"), demo_images("test")
    assert tool.write_folders(tmp_path) == len(train) + len(test)
    data = open_split_data(tmp_path)
    assert data.class_ids == tuple("0123456789")
    assert (len(data.train), len(data.test)) == (len(train), len(test))
    with Image.open(tmp_path / "train" / str(labels[3]) / "0003.png") as image:
        np.testing.assert_array_equal(np.asarray(image), 255 - train[3])
