"""Views made on demand: the same arrays, bounded memory, errors that arrive, threads that end."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import fozo
import numpy as np
import pytest
from doubles import draw_picture
from fozo.data.lazy_views import LazyViews
from fozo.engine.bundle.preprocessing import Preprocessing
from fozo.engine.errors import InputError
from fozo.engine.interface.view_recipe import ViewRecipe
from PIL import Image

PREPROCESSING = Preprocessing((16, 16), 18, "bicubic")
FILES = [Image.fromarray(draw_picture(seed, (30 + seed, 40))) for seed in range(5)]
IDS = [f"class/{index}.jpg" for index in range(5)]
PLAIN = np.stack([fozo.preprocess(image, PREPROCESSING) for image in FILES])


def open_views(count: int = 6, kind: str = "crops", threads: int = 2) -> LazyViews:
    return LazyViews(PLAIN, ViewRecipe(count, kind), 7, IDS, FILES.__getitem__, threads)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["crops", "augmix"])
@pytest.mark.parametrize("threads", [1, 3])
def test_they_are_what_fozo_views_returns(kind: str, threads: int) -> None:
    with open_views(kind=kind, threads=threads) as lazy:
        assert len(lazy) == 5 and [len(lazy[index]) for index in range(5)] == [6] * 5
        for index, image in enumerate(FILES):
            expected = fozo.views(image, 6, PREPROCESSING, seed=7, image_id=IDS[index], kind=kind)  # type: ignore[arg-type]
            assert np.array_equal(lazy[index][:], expected)


def test_order_and_slices_change_nothing() -> None:
    with open_views() as lazy:
        expected = [lazy[index][0:6] for index in range(5)]
        for index in (3, 0, 4, 4, 1, -1):
            assert np.array_equal(lazy[index][2:5], expected[index][2:5])
            assert np.array_equal(lazy[index][0:1], PLAIN[index][None])
            assert np.array_equal(lazy[index][4:99], expected[index][4:])
            assert np.array_equal(lazy[index][::-2], expected[index][::-2])
            assert np.array_equal(lazy[index][-1], expected[index][5])
            assert lazy[index][3:3].shape == (0, 16, 16, 3)
        assert all(np.array_equal(views[1:], full[1:]) for views, full in zip(lazy, expected, strict=True))
        with pytest.raises(IndexError):
            lazy[5]
        with pytest.raises(IndexError):
            lazy[0][6]


def test_arrays_are_their_own_source() -> None:
    with LazyViews(PLAIN, ViewRecipe(4), 0, IDS) as lazy:
        assert np.array_equal(lazy[2][:], fozo.views(PLAIN[2], 4, image_id=IDS[2]))


def test_only_one_image_is_read_ahead() -> None:
    opened: list[int] = []

    def open_image(index: int) -> Image.Image:
        opened.append(index)
        return FILES[index]

    with LazyViews(PLAIN, ViewRecipe(6), 7, IDS, open_image) as lazy:
        lazy[0][0:1]
        assert opened == []  # view 0 is there
        lazy[0][1:4]
        for _ in range(200):
            if opened == [0, 1] and all(f.done() for p in lazy._images.values() for f in p.futures.values()):
                break
            time.sleep(0.01)
        assert opened == [0, 1] and set(lazy._images) == {0, 1}
        assert len(lazy._images[1].futures) == 3 and not lazy._images[0].futures
        lazy[0][4:6]
        assert set(lazy._images) == {0, 1} and len(lazy._images[1].futures) == 3
        lazy[1][1:4]
        assert set(lazy._images) == {1, 2}
        lazy[4][1:4]
        assert set(lazy._images) == {4}
    assert lazy._images == {}


def test_an_error_arrives_as_it_is_with_its_image(tmp_path: Path) -> None:
    def open_image(index: int) -> Image.Image:
        return FILES[0] if index == 0 else fozo.read_image(tmp_path / f"{index}.jpg")

    with LazyViews(PLAIN, ViewRecipe(6), 7, IDS, open_image) as lazy:
        assert lazy[0][:].shape == (6, 16, 16, 3)  # what is read ahead fails later
        for _ in range(2):
            with pytest.raises(InputError, match=r"cannot read the image .*1\.jpg"):
                lazy[1][:]
        assert np.array_equal(lazy[1][0:1], PLAIN[1][None])


def test_closing_in_the_middle_ends_the_threads() -> None:
    gate = threading.Event()

    def open_image(index: int) -> Image.Image:
        if index:
            gate.wait(5)
        return FILES[index]

    lazy = LazyViews(PLAIN, ViewRecipe(60), 7, IDS, open_image)
    with lazy:
        lazy[0][1:60]
        gate.set()
    names = [thread.name for thread in threading.enumerate()]
    assert not any(name.startswith("fozo-views") for name in names)
    lazy.close()
    with pytest.raises(InputError, match="closed"):
        lazy[0][0:3]
