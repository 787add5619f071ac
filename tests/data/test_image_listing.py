"""The image files of a folder: which count, which are left out, and which are never a user's."""

from __future__ import annotations

from pathlib import Path

import pytest
from fozo.data.image_listing import list_images
from fozo.data.image_names import describe_left_out
from fozo.engine.errors import InputError


def test_list_images_is_recursive_sorted_and_skips_what_is_hidden(tmp_path: Path) -> None:
    wanted = ["a-b/z.png", "a/B.JPG", "a/b.jpeg", "a/c/d.webp", "b.bmp", "z.PpM"]
    others = [".hidden/x.png", "a/.x.png", "a/notes.txt", "png", "x.gif", "x.png.bak"]
    for name in reversed(wanted + others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path).paths]
    assert found == sorted(wanted)


def test_list_images_accepts_a_hidden_folder_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "a.png").write_bytes(b"")
    assert list_images(str(tmp_path / ".cache")).paths == [tmp_path / ".cache" / "a.png"]


def test_list_images_refuses_missing_files_and_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(InputError, match=r"found nothing: .*none; check the path"):
        list_images(tmp_path / "none")
    with pytest.raises(InputError, match=r"found a file: .*a\.txt"):
        list_images(tmp_path / "a.txt")
    with pytest.raises(InputError, match=r"found no image in the folder .*\.jpg"):
        list_images(tmp_path)


def touch(folder: Path, *names: str, content: bytes = b"") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_jpeg_files_under_other_suffixes_are_images(tmp_path: Path) -> None:
    touch(tmp_path, "a.jfif", "b.JPE", "c.jif", "d.pjpeg")
    assert [path.name for path in list_images(tmp_path).paths] == ["a.jfif", "b.JPE", "c.jif", "d.pjpeg"]


def test_thumbnails_of_file_servers_and_archivers_are_never_images(tmp_path: Path) -> None:
    touch(tmp_path, "cat.jpg", "@eaDir/cat.jpg/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/cat.jpg", "#recycle/old.jpg")
    assert [path.name for path in list_images(tmp_path).paths] == ["cat.jpg"]
    assert len(list_images(tmp_path / "__MACOSX").paths) == 1, "a folder that was asked for"


def test_images_that_are_left_out_are_counted_by_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.heic", "c.HEIC", "d.tif", ".e.gif", "labels.csv", "README", "Thumbs.db")
    touch(tmp_path, "photo", content=b"\xff\xd8\xff\xe0 and so on")
    left_out = list_images(tmp_path).left_out
    assert left_out == {".heic": 2, ".tif": 1, "no suffix": 1}
    assert describe_left_out(left_out) == (
        "4 files that look like images were left out (2 with .heic, 1 with .tif, 1 with no suffix); convert "
        "them to PNG or JPEG, with a suffix of those, to have them read"
    )
    assert describe_left_out({}) == ""


def test_a_folder_of_left_out_images_says_so(tmp_path: Path) -> None:
    touch(tmp_path, "a.gif")
    with pytest.raises(InputError, match=r"found no image.*1 file that looks like an image was .*\.gif"):
        list_images(tmp_path)
