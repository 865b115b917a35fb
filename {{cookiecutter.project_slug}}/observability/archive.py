"""Writes volumes to one archive and reads them back: ``make obs-backup``, ``make obs-restore``.

Run by archive.sh in a container of the backend's image, with each volume mounted under /volumes.
An archive is a compressed tar file: a folder for each volume, and at its end the manifest, which
has a checksum of every file. So a manifest is there only if all of the archive was written.
"""

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

FORMAT = "observability-archive/1"
MANIFEST = "manifest.json"
MANIFEST_MAX = 64 << 20  # bytes; it is held in memory
VOLUMES = Path("/volumes")
CHUNK = 1 << 20
BLOCK = 4096  # bytes; what a file takes on a disk is a multiple


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


@dataclass
class Contents:
    """What an archive has, as far as it was read.

    Attributes:
        checksums: Of each file.
        folders: The volumes and the folders in them.
        sizes: What the files of each volume take on a disk.
        manifest: Comes last; empty until then.
        created: When it was written.
    """

    checksums: dict[str, str] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    sizes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    manifest: bytes = b""
    created: str = ""


def write(project: str, output: IO[bytes]) -> None:
    """Write all volumes to an archive.

    Raises:
        Refused: a volume has a link, which could not be restored.
    """
    volumes = sorted(path.name for path in VOLUMES.iterdir())
    checksums: dict[str, str] = {}
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=output) as packed,
        tarfile.open(fileobj=packed, mode="w|") as archive,
    ):
        for path in sorted(VOLUMES.rglob("*")):
            if path.is_symlink():
                raise Refused(f"{path} is a link, and only files and folders can be saved")
            if not (path.is_dir() or path.is_file()):  # a socket
                continue
            member = archive.gettarinfo(path, str(path.relative_to(VOLUMES)))
            if member.isdir():
                archive.addfile(member)
                continue
            # The second name of a file would be a link to the first.
            member.type, member.linkname, member.size = tarfile.REGTYPE, "", path.stat().st_size
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


def verify(path: Path, project: str, wanted: list[str]) -> Contents:
    """Read all of an archive and return what it has.

    Args:
        path: The archive.
        project: The Compose project that it must be of.
        wanted: Names of the volumes that it must have.

    Raises:
        Refused: it is damaged, incomplete, or of something else.
    """
    contents = Contents()
    try:
        with gzip.open(path) as packed:
            with tarfile.open(fileobj=packed, mode="r|") as archive:
                for member in archive:
                    _check_member(archive, member, wanted, contents)
            # The tar file ends with zeros; gzip compares its checksum only at the very end.
            while part := packed.read(CHUNK):
                if part.strip(b"\0"):
                    raise Refused("it is damaged: more follows after its end")
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        raise Refused(f"it is damaged, or no archive at all: {error}") from error
    try:
        manifest = json.loads(contents.manifest)
        described = manifest["format"], manifest["project"], manifest["volumes"]
        checksums = manifest["sha256"]
        contents.created = str(datetime.fromisoformat(manifest["created"]))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Refused("it has no manifest at its end: it is incomplete, or not ours") from error
    if described[0] != FORMAT:
        raise Refused(f"its format is {described[0]!r}, not {FORMAT!r}")
    if described[1] != project:
        raise Refused(f"it is of the project {described[1]!r}, not {project!r}")
    if described[2] != wanted:
        raise Refused(f"its volumes are {described[2]}, not {wanted}")
    if checksums != contents.checksums:
        raise Refused("it is damaged: files and checksums differ")
    return contents


def _check_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, wanted: list[str], contents: Contents
) -> None:
    """Note what a member is, if it may follow those before it."""
    name, parts = member.name, member.name.split("/")
    if contents.manifest:
        raise Refused(f"it has {name!r} after its manifest")
    file = archive.extractfile(member) if member.type == tarfile.REGTYPE else None
    if name == MANIFEST and file:
        if member.size > MANIFEST_MAX:
            raise Refused(f"its manifest has {member.size} bytes")
        contents.manifest = file.read()
        return
    if parts[0] not in wanted or {"", ".", ".."} & {*parts} or not (file or member.isdir()):
        raise Refused(f"it has {name!r}, which is in no volume of this project")
    above = "/".join(parts[:-1])
    if name in contents.checksums or name in contents.folders:
        raise Refused(f"it has {name!r} twice")
    if above and above not in contents.folders:
        raise Refused(f"it has {name!r}, but no folder {above!r}")
    if not file:
        contents.folders.add(name)
        return
    digest = hashlib.sha256()
    while part := file.read(CHUNK):
        digest.update(part)
    contents.checksums[name] = digest.hexdigest()
    contents.sizes[parts[0]] += (member.size // BLOCK + 2) * BLOCK  # and one for what describes it


def check_space(contents: Contents) -> None:
    """Compare what is going to be written with what will be free, on each disk.

    Raises:
        Refused: there is not enough.
    """
    missing: dict[int, int] = {}
    for volume in VOLUMES.iterdir():
        disk, used = volume.stat().st_dev, sum(p.lstat().st_blocks for p in volume.rglob("*")) * 512
        if disk not in missing:
            free = os.statvfs(volume)
            missing[disk] = -free.f_bavail * free.f_frsize
        missing[disk] += contents.sizes.get(volume.name, 0) - used
    if (most := max(missing.values(), default=0)) > 0:
        raise Refused(f"the disk has not enough space for it: {most >> 20} MiB are missing")


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
        contents = verify(archive, project, sorted(volumes))
        if command == "restore":
            check_space(contents)
            restore(archive)
    except Refused as refused:
        what = "Nothing is saved" if command == "write" else "The archive is refused"
        print(f"{what}: {refused}.", file=sys.stderr)
        return 1
    if command == "verify":
        files = len(contents.checksums)
        print(f"The archive of {project} from {contents.created} is complete: {files} files.")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
