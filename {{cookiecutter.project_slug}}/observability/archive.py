"""Writes volumes to one archive and reads them back: ``make obs-backup``, ``make obs-restore``.

Run by archive.sh in a container of the backend's image, with each volume mounted under /volumes.
An archive is a compressed tar file: a folder for each volume, and at its end the manifest, which
has a checksum of every file. So a manifest is there only if all of the archive was written.
"""

import hashlib
import io
import json
import os
import sys
import tarfile
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

FORMAT = "observability-archive/1"
MANIFEST = "manifest.json"
VOLUMES = Path("/volumes")
CHUNK = 1 << 20

Manifest = dict[str, Any]


class Refused(Exception):
    """The archive is not used; the message says why."""


class _Hashed:
    """A file that is read once, by tarfile, and hashed on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        part = self._file.read(size)
        self.hash.update(part)
        return part


def write(project: str, output: IO[bytes]) -> None:
    """Write all volumes to an archive."""
    volumes = sorted(path.name for path in VOLUMES.iterdir())
    checksums: dict[str, str] = {}
    with tarfile.open(fileobj=output, mode="w|gz", compresslevel=1) as archive:
        for path in sorted(VOLUMES.rglob("*")):
            member = archive.gettarinfo(path, str(path.relative_to(VOLUMES)))
            if member is None:  # a socket
                continue
            if not member.isreg():
                archive.addfile(member)
                continue
            with path.open("rb") as file:
                hashed = _Hashed(file)
                archive.addfile(member, hashed)
            checksums[member.name] = hashed.hash.hexdigest()
        manifest = {
            "format": FORMAT,
            "project": project,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "volumes": volumes,
            "sha256": checksums,
        }
        content = json.dumps(manifest, indent=1).encode()
        member = tarfile.TarInfo(MANIFEST)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


def verify(path: Path, project: str, wanted: list[str]) -> Manifest:
    """Read all of an archive and return its manifest.

    Args:
        path: The archive.
        project: The Compose project that it must be of.
        wanted: Names of the volumes that it must have.

    Raises:
        Refused: it is damaged, incomplete, or of something else.
    """
    found: dict[str, str] = {}
    last = b""
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                last = _check_member(archive, member, wanted, found)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise Refused(f"it is damaged, or no archive at all: {error}") from error
    try:
        manifest: Manifest = json.loads(last)
        described = manifest["format"], manifest["project"], manifest["volumes"]
    except (ValueError, TypeError, KeyError) as error:
        raise Refused("it has no manifest at its end: it is incomplete, or not ours") from error
    if described[0] != FORMAT:
        raise Refused(f"its format is {described[0]!r}, not {FORMAT!r}")
    if described[1] != project:
        raise Refused(f"it is of the project {described[1]!r}, not {project!r}")
    if described[2] != wanted:
        raise Refused(f"its volumes are {described[2]}, not {wanted}")
    if manifest["sha256"] != found:
        raise Refused("it is damaged: files and checksums differ")
    return manifest


def _check_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, wanted: list[str], found: dict[str, str]
) -> bytes:
    """Note the checksum of a member; return its content if it is the manifest."""
    if member.name == MANIFEST and member.isreg():
        file = archive.extractfile(member)
        return file.read() if file else b""
    parts = member.name.split("/")
    kind = member.isreg() or member.isdir()
    if parts[0] not in wanted or ".." in parts or not kind:
        raise Refused(f"it has {member.name!r}, which is in no volume of this project")
    if member.isreg() and (file := archive.extractfile(member)):
        digest = hashlib.sha256()
        while part := file.read(CHUNK):
            digest.update(part)
        found[member.name] = digest.hexdigest()
    return b""


def restore(path: Path) -> None:
    """Replace what is in the volumes by what is in a verified archive."""
    for volume in VOLUMES.iterdir():
        for folder, folders, files in os.walk(volume, topdown=False):
            for name in files:
                os.unlink(os.path.join(folder, name))
            for name in folders:
                inner = Path(folder, name)
                inner.unlink() if inner.is_symlink() else inner.rmdir()
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            if member.name != MANIFEST:
                archive.extract(member, VOLUMES, numeric_owner=True, filter=_with_its_mode)


def _with_its_mode(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    # The filter refuses paths that lead elsewhere, but also takes rights away from groups.
    return tarfile.tar_filter(member, folder).replace(mode=member.mode & 0o777, deep=False)


def main(command: str, project: str, *volumes: str) -> int:
    """Do one of write, verify and restore; return the exit code."""
    archive = Path("/archive")
    try:
        if command == "write":
            write(project, sys.stdout.buffer)
            return 0
        manifest = verify(archive, project, sorted(volumes))
        if command == "restore":
            restore(archive)
    except Refused as refused:
        print(f"The archive is refused: {refused}.", file=sys.stderr)
        return 1
    if command == "verify":
        files = len(manifest["sha256"])
        print(f"The archive of {project} from {manifest['created']} is complete: {files} files.")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
