"""Files of strangers: arrays that are larger than their file, pipes, devices, links."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fozo.engine.errors import BundleError, InputError, OutputError, escape_controls, has_controls
from fozo.engine.files import check_writable, from_npz, hold_lock, to_npz, write_atomic

ARRAYS: dict[str, Any] = {
    "floats": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "scalar": np.float64(3.5),
    "empty": np.zeros((0, 3), np.float32),
    "truth": np.array([True, False]),
    "bytes": np.frombuffer(b"text", np.uint8),
}


def member(declared: str, content: bytes = b"") -> bytes:
    """Return a `.npy` whose header declares a type and a shape."""
    header = f"{{'descr': {declared}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


def write_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(to_npz(**ARRAYS))
    arrays = from_npz(path)
    assert list(arrays) == list(ARRAYS)
    for name, array in arrays.items():
        expected = np.asarray(ARRAYS[name])
        assert (array.dtype, array.shape, array.flags.writeable) == (expected.dtype, expected.shape, True)
        np.testing.assert_array_equal(array, expected)


def test_numpy_reads_and_writes_the_same_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "theirs.npz", **ARRAYS)
    (tmp_path / "ours.npz").write_bytes(to_npz(**ARRAYS))
    with np.load(tmp_path / "ours.npz") as theirs:
        for name, array in from_npz(tmp_path / "theirs.npz").items():
            np.testing.assert_array_equal(array, theirs[name])


def test_a_small_file_does_not_unpack_to_gigabytes(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros(10_000_000, np.uint8))
    path = write_zip(tmp_path / "bomb.npz", {"mean": stream.getvalue()}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 20_000
    with pytest.raises(ValueError, match="larger than the file: expected them uncompressed"):
        from_npz(path)


def test_compressed_arrays_are_refused_even_if_they_are_small(tmp_path: Path) -> None:
    content = member("'<f4', 'fortran_order': False, 'shape': (2,)", os.urandom(8))
    path = write_zip(tmp_path / "a.npz", {"a": content}, zipfile.ZIP_DEFLATED)
    path.write_bytes(bytes(0) + path.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("padding.npy", bytes(5000))
    with pytest.raises(ValueError, match=r"a\.npy is compressed"):
        from_npz(path)


@pytest.mark.parametrize(
    "declared",
    [
        "'<f4', 'fortran_order': False, 'shape': (1000000000000,)",
        "'<f4', 'fortran_order': False, 'shape': (1000000, 1000000, 1000000, 1000000)",
        "'<f4', 'fortran_order': False, 'shape': (1,)",
        "'<f4', 'fortran_order': False, 'shape': (3,)",
        "'<f4', 'fortran_order': False, 'shape': (-1, -2)",
        "'|S0', 'fortran_order': False, 'shape': (1000000000000,)",
        "'|O', 'fortran_order': False, 'shape': (1,)",
        "'<f4', 'fortran_order': False",
        "'nonsense', 'fortran_order': False, 'shape': (2,)",
    ],
)
def test_headers_that_declare_other_sizes(declared: str, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.npz", {"a": member(declared, bytes(8))})
    with pytest.raises(ValueError, match=": "):
        from_npz(path)


@pytest.mark.parametrize("content", [b"", b"text", member("")[:20], b"\x93NUMPY\x09\x00" + bytes(100)])
def test_members_that_are_no_arrays(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=": "):
        from_npz(write_zip(tmp_path / "a.npz", {"a": content}))


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    content = bytearray(to_npz(a=np.arange(100.0)))
    content[content.index(np.float64(50).tobytes())] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match="CRC"):
        from_npz(tmp_path / "a.npz")


@pytest.mark.skipif(os.name != "posix", reason="makes a pipe")
def test_arrays_are_not_read_from_pipes_and_devices(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(ValueError, match="a pipe or a device, expected a file"):
            from_npz(path)


@pytest.mark.skipif(os.name != "posix", reason="makes a pipe")
def test_a_lock_that_is_a_pipe_is_no_lock(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".lock")
    with hold_lock(tmp_path / ".lock", "busy"):
        pass
    assert (tmp_path / ".lock").exists()


def test_a_link_is_followed_and_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "results.json", tmp_path / "results.json"
    link.symlink_to(target)
    for content in (b"first", b"second"):
        check_writable(link)
        write_atomic(link, content)
        assert link.is_symlink()
        assert target.read_bytes() == content
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["results.json"]


@pytest.mark.skipif(os.name != "posix", reason="makes a pipe")
def test_devices_and_pipes_are_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    for path in (tmp_path / "pipe", tmp_path / "link"):
        for write in (check_writable, lambda path: write_atomic(path, b"")):
            with pytest.raises(OutputError, match="a device or a pipe; name a file"):
                write(path)
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "a\rb", "\x9b31m", "a\u202eb", "\u2028", "\ud800", "\0"])
def test_controls_are_escaped_in_every_error(text: str) -> None:
    assert has_controls(text)
    for kind in (InputError, BundleError):
        message = str(kind(f"no class {text}"))
        assert message.isprintable() and not has_controls(message)
        message.encode()


@pytest.mark.parametrize("text", ["café", "金魚", "a b", "naïve “quotes” – dashes…", "🐟"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert not has_controls(text)
    assert escape_controls(text) == text == str(InputError(text))
