"""Lists as people and programs write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from fozo.data.class_names import read_class_names, read_names
from fozo.data.text_lists import read_entries
from fozo.engine.errors import InputError


@pytest.mark.parametrize(
    "content",
    [
        b"golden retriever\n#1 fan\n",
        b"\xef\xbb\xbfgolden retriever\r\n\r\n  #1 fan \r\n",
        b"# breeds\rgolden retriever\r#\r#1 fan",
    ],
    ids=["plain", "byte-order mark and CRLF", "comments and CR"],
)
def test_marks_ends_of_lines_and_comments_make_no_difference(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    assert [text for _, text in read_entries(tmp_path / "list.txt", "list")] == ["golden retriever", "#1 fan"]


def test_only_ends_of_lines_end_an_entry(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a\u2028b\n\nc\x0cd\n", encoding="utf-8")
    assert read_entries(tmp_path / "list.txt", "list") == [(1, "a\u2028b"), (3, "c\x0cd")]


def test_a_list_in_utf_16_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("cat", encoding="utf-16")
    with pytest.raises(
        InputError, match=r"cannot read the list of cats .*list\.txt: .*expected text in UTF-8"
    ):
        read_entries(tmp_path / "list.txt", "list of cats")


def test_identifiers_of_classes_may_have_spaces_before_a_tab(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("\ufeffgolden retriever\tDog\ngolden eagle\tBird of prey\n", encoding="utf-8")
    assert read_class_names(path, 2) == (("golden retriever", "golden eagle"), ("Dog", "Bird of prey"))
    path.write_text("golden retriever\ngolden eagle\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"found 'golden' in lines 1 and 2; .* with a tab"):
        read_class_names(path, 2)


@pytest.mark.parametrize(
    ("content", "ids", "identifiers", "names"),
    [
        ("cat\ngreat_white shark\n", None, ("cat", "great_white shark"), ("cat", "great white shark")),
        ("a b\tA_b c\nc\tC\n", None, ("a b", "c"), ("A b c", "C")),
        (
            "n01440764 tench\nn01443537\tgold  eel\n",
            None,
            ("n01440764", "n01443537"),
            ("tench", "gold eel"),
        ),
        ("7 cat\n8 big dog\n", True, ("7", "8"), ("cat", "big dog")),
        ("7 cat\n8 big dog\n", False, ("7 cat", "8 big dog"), ("7 cat", "8 big dog")),
        ("7\n8\n", None, ("7", "8"), ("7", "8")),
        ("a\tcat\nb\tcat\n", None, ("a", "b"), ("cat", "cat")),
    ],
)
def test_names_with_and_without_identifiers(
    content: str, ids: bool | None, identifiers: tuple[str, ...], names: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "names.txt"
    path.write_text(content, encoding="utf-8")
    assert read_names(path, ids) == (identifiers, names)


@pytest.mark.parametrize(
    ("content", "ids", "reason"),
    [
        ("# none\n", None, "found none"),
        ("cat\ndog\ncat\n", None, "different names in .* found 'cat' 2 times"),
        ("a\tcat\na\tdog\n", None, "different identifiers in .* found 'a' 2 times"),
        ("a\tcat\ndog\n", None, "in all lines of .* or in none, found 'dog' in line 2"),
        ("7 cat\n8 dog\n", None, "found '7 cat' in line 1; put a tab behind"),
        ("cat\n", True, "an identifier and a name in line 1"),
        ("n01440764\n", None, "an identifier and a name in line 1"),
    ],
)
def test_names_that_are_unclear(content: str, ids: bool | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=reason):
        read_names(path, ids)
