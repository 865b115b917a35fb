"""archive.py without its container: volumes are restored exactly, and invalid archives are rejected."""

import gzip
import importlib.util
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.support.path import path_with_stub
from tests.support.template import TEMPLATE

FILES = {"a/one": b"1" * 5000, "a/deep/er/two": b"", "b/three": bytes(range(256)) * 9000}
VOLUMES = ["a", "b"]


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import archive.py, with volumes in the test's folder."""
    path = TEMPLATE / "observability/archive.py"
    spec = importlib.util.spec_from_file_location("archive", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "archive", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VOLUMES", tmp_path / "volumes")
    for name, content in FILES.items():
        file = tmp_path / "volumes" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (tmp_path / "volumes/a/one").chmod(0o640)
    (tmp_path / "volumes/a/deep").chmod(0o770)
    return module


@pytest.fixture
def saved(archive: ModuleType, tmp_path: Path) -> Path:
    """Return an archive of the volumes."""
    path = tmp_path / "saved.tar.gz"
    with path.open("wb") as output:
        archive.write("mine", output)
    return path


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return the mode and content of each file and folder."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in folder.rglob("*")
    }


def files(manifest: dict[str, Any]) -> set[str]:
    """Return the names of the files; only files have a checksum."""
    return {name for name, checksum in manifest["sha256"].items() if checksum}


def test_restore_recovers_the_volumes_and_deletes_newer_files(
    archive: ModuleType, saved: Path
) -> None:
    before = contents(archive.VOLUMES)
    (archive.VOLUMES / "a/one").write_bytes(b"changed")
    (archive.VOLUMES / "b/new").mkdir()
    (archive.VOLUMES / "b/new/file").touch()
    (archive.VOLUMES / "b/link").symlink_to("/etc")
    found = archive.verify(saved, "mine", VOLUMES)
    assert files(found) == FILES.keys()
    archive.restore(saved, found["size"])
    assert contents(archive.VOLUMES) == before


def test_hard_links_are_stored_as_files_and_pipes_and_sockets_are_omitted(
    archive: ModuleType, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (archive.VOLUMES / "a/again").hardlink_to(archive.VOLUMES / "b/three")
    os.mkfifo(archive.VOLUMES / "a/pipe")
    monkeypatch.chdir(archive.VOLUMES)
    with socket.socket(socket.AF_UNIX) as listener, saved.open("wb") as output:
        listener.bind("b/socket")
        archive.write("mine", output)
    found = archive.verify(saved, "mine", VOLUMES)
    assert files(found) == {*FILES, "a/again"}
    archive.restore(saved, found["size"])
    assert (archive.VOLUMES / "a/again").read_bytes() == FILES["b/three"]


def test_symbolic_link_is_rejected_by_the_backup_not_by_the_restore(archive: ModuleType) -> None:
    (archive.VOLUMES / "a/link").symlink_to("one")
    with pytest.raises(archive.Rejected, match="a/link is a symbolic link"):
        archive.write("mine", io.BytesIO())


def with_members(
    change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], object],
) -> Callable[[Path], bytes]:
    """Return a function that copies an archive and changes the list of its members."""

    def make(path: Path) -> bytes:
        with tarfile.open(path) as old:
            members = [(m, f.read() if (f := old.extractfile(m)) else b"") for m in old]
        change(members)
        output = io.BytesIO()
        with tarfile.open(fileobj=output, mode="w:gz") as new:
            for member, content in members:
                member.size = len(content)
                new.addfile(member, io.BytesIO(content))
        return output.getvalue()

    return make


def with_manifest(change: Callable[[dict[str, object]], object]) -> Callable[[Path], bytes]:
    def changed(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        member, content = members[-1]
        manifest = json.loads(content)
        change(manifest)
        members[-1] = member, json.dumps(manifest).encode()

    return with_members(changed)


def empty(name: str, kind: bytes = tarfile.REGTYPE) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type = kind
    return member, b""


def with_trailer(change: Callable[[bytes], bytes]) -> Callable[[Path], bytes]:
    return lambda path: path.read_bytes()[:-8] + change(path.read_bytes()[-8:])


BROKEN: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "last bytes missing": ("damaged", lambda path: path.read_bytes()[:-3]),
    "trailer missing": ("damaged", with_trailer(lambda _: b"")),
    "wrong gzip checksum": ("damaged", with_trailer(lambda end: bytes(4) + end[4:])),
    "wrong gzip length": ("damaged", with_trailer(lambda end: end[:4] + bytes(4))),
    "garbage at the end": ("damaged", lambda path: path.read_bytes() + b"garbage"),
    "second gzip member": ("damaged", lambda p: p.read_bytes() + gzip.compress(b"x" * 20_000)),
    "archive twice": ("damaged", lambda path: path.read_bytes() * 2),
    "two manifests": ("follows the manifest", with_members(lambda all_: all_.append(all_[-1]))),
    "a file after the manifest": ("follows the manifest", with_members(lambda m: m.append(empty("a/x")))),
    "no checksums": ("incomplete", with_manifest(lambda manifest: manifest.pop("sha256"))),
    "no date": ("incomplete", with_manifest(lambda m: m.update(created="\x1b[2J"))),
    "a list as manifest": ("incomplete", with_members(lambda m: m.append((m.pop()[0], b"[]")))),
    "a deep manifest": ("incomplete", with_members(lambda m: m.append((m.pop()[0], b"[" * 99_999)))),
    "a folder as manifest": (
        "is not a file or folder of a volume",
        with_members(lambda m: m.insert(0, empty("manifest.json", tarfile.DIRTYPE))),
    ),
    "a file twice": ("'a/one' is a duplicate", with_members(lambda m: m.insert(-1, empty("a/one")))),
    "a file as folder": ("checksums differ", with_members(lambda m: m.insert(-1, empty("a/one/x")))),
    "a folder as file": ("'a/deep' is a duplicate", with_members(lambda m: m.insert(-1, empty("a/deep")))),
    "a volume as file": ("'b' is a duplicate", with_members(lambda m: m.insert(-1, empty("b")))),
    "dots": ("is not a file or folder of a volume", with_members(lambda m: m.insert(-1, empty("a/./x")))),
    "outside": ("is not a file or folder of a volume", with_members(lambda m: m.insert(-1, empty("a/../../x")))),
    "a link": ("is not a file or folder of a volume", with_members(lambda m: m.insert(-1, empty("a/x", tarfile.SYMTYPE)))),
    "a hard link": ("is not a file or folder of a volume", with_members(lambda m: m.insert(-1, empty("a/x", tarfile.LNKTYPE)))),
    "a device": ("is not a file or folder of a volume", with_members(lambda m: m.insert(-1, empty("a/x", tarfile.BLKTYPE)))),
}  # fmt: skip


@pytest.mark.parametrize(("message", "make"), BROKEN.values(), ids=BROKEN)
def test_invalid_archive_is_rejected(
    archive: ModuleType, saved: Path, message: str, make: Callable[[Path], bytes]
) -> None:
    broken = saved.with_name("broken.tar.gz")
    broken.write_bytes(make(saved))
    with pytest.raises(archive.Rejected, match=message):
        archive.verify(broken, "mine", VOLUMES)


def test_any_truncation_and_any_changed_byte_is_detected(archive: ModuleType, saved: Path) -> None:
    data, broken = saved.read_bytes(), saved.with_name("broken.tar.gz")
    # Bytes 3 to 9 of gzip's header (flags, time and system) do not matter.
    positions = [*range(3), *range(10, len(data), max(1, len(data) // 40)), len(data) - 1]
    for position in positions:
        changed = bytearray(data)
        changed[position] ^= 0x10
        for damaged in (data[:position], bytes(changed)):
            broken.write_bytes(damaged)
            try:
                archive.verify(broken, "mine", VOLUMES)
            except archive.Rejected:
                continue
            assert gzip.decompress(damaged) == gzip.decompress(data)  # only compressed differently


def test_manifest_that_is_too_large_is_not_read(
    archive: ModuleType, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MANIFEST_MAX", 100)
    with pytest.raises(archive.Rejected, match=r"'manifest\.json' is not a file"):
        archive.verify(saved, "mine", VOLUMES)


def test_nothing_is_deleted_if_the_archive_does_not_fit_on_the_disk(
    archive: ModuleType, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk(blocks: int) -> Callable[[object], object]:
        return lambda path: SimpleNamespace(f_bavail=blocks, f_frsize=4096)

    size = archive.verify(saved, "mine", VOLUMES)["size"]
    for file in (archive.VOLUMES / "b").iterdir():
        file.unlink()
    before = contents(archive.VOLUMES)
    monkeypatch.setattr(os, "statvfs", disk(4))
    with pytest.raises(archive.Rejected, match="not enough disk space: it requires 2 MiB more"):
        archive.restore(saved, size)
    assert contents(archive.VOLUMES) == before
    monkeypatch.setattr(os, "statvfs", disk(1000))
    archive.restore(saved, size)
    # Existing files are replaced, so their space counts as free.
    monkeypatch.setattr(os, "statvfs", disk(4))
    archive.restore(saved, size)


DOCKER = """#!/bin/sh
case "$*" in
  *--format*) echo '  "name": "mine",' ;;
  *--volumes*) case "$*" in *overlay*) printf 'a\\nb\\nown\\n' ;; *) echo own ;; esac ;;
  *--images*) echo mine:observability ;;
  run*) printf '%s\\n' "$@" >>"$DOCKER_LOG"; case "$*" in *" write "*) echo data ;; esac ;;
esac
"""


def test_backup_path_can_contain_any_character_and_the_archive_is_verified(tmp_path: Path) -> None:
    path = path_with_stub(DOCKER, tmp_path)
    log = tmp_path / "log"
    file = tmp_path / 'a:b, "c" d.tar.gz'
    done = subprocess.run(
        ["/bin/sh", TEMPLATE / "observability/data.sh", "backup", file],
        env={
            "PATH": path,
            "DOCKER_LOG": str(log),
            "CORE": "docker core",
            "COMPOSE": "docker overlay",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert file.read_text() == "data\n"
    arguments = log.read_text().splitlines()
    quoted = str(file).replace('"', '""')
    assert f'type=bind,"source={quoted}.part",target=/archive,readonly' in arguments
    assert [each for each in arguments if each in ("write", "verify")] == ["write", "verify"]
    assert arguments.count("--memory") == arguments.count("--pids-limit") == 2
