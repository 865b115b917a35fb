"""Write volumes to an archive and restore them: ``make obs-backup``, ``make obs-restore``.

data.sh runs this in a container of the backend's image, with each volume mounted below /volumes.
An archive is a compressed tar file. Its last member is the manifest with the checksum of every
file, so an archive with a manifest is complete.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

FORMAT = "observability-archive/2"
MANIFEST = "manifest.json"
MANIFEST_MAX = 64 << 20  # bytes; it is read into memory
VOLUMES = Path("/volumes")
BLOCK = 4096  # bytes; a file occupies a multiple of this
UNREADABLE = (
    *(OSError, EOFError, zlib.error, tarfile.TarError),  # the file
    *(ValueError, TypeError, LookupError, RecursionError),  # its manifest
)


class Rejected(Exception):
    """The archive cannot be written or restored; the message says why."""


def digest(file: Any) -> str:
    """Return the SHA-256 checksum of a file that is open for reading."""
    return hashlib.file_digest(file, "sha256").hexdigest()


def write(project: str, output: IO[bytes]) -> None:
    """Write all files and folders of the volumes to an archive."""
    checksums = {}
    with (
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=output) as packed,
        # Without dereference, tarfile stores hard links, which verify() rejects.
        tarfile.open(fileobj=packed, mode="w|", dereference=True) as archive,
    ):
        for path in sorted(VOLUMES.rglob("*")):
            if path.is_symlink():
                raise Rejected(f"{path} is a symbolic link; must be a file or folder")
            if not (path.is_dir() or path.is_file()):
                continue  # a socket or pipe, which its program creates again
            name = str(path.relative_to(VOLUMES))
            archive.add(path, name, recursive=False)
            checksums[name] = ""
            if path.is_file():
                with path.open("rb") as file:
                    checksums[name] = digest(file)
        manifest = {
            "format": FORMAT,
            "project": project,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "volumes": sorted(path.name for path in VOLUMES.iterdir()),
            "sha256": checksums,
        }
        content = json.dumps(manifest, indent=1).encode()
        member = tarfile.TarInfo(MANIFEST)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


def verify(path: Path, project: str, volumes: list[str]) -> dict[str, Any]:
    """Read a whole archive and return its manifest, with the size on disk in bytes."""
    found: dict[str, str] = {}
    content, size = b"", 0
    try:
        with gzip.open(path) as packed:
            with tarfile.open(fileobj=packed, mode="r|") as archive:
                for member in archive:
                    name, parts = member.name, member.name.split("/")
                    file = archive.extractfile(member) if member.isreg() else None
                    if content or name in found:
                        raise Rejected(f"{name!r} is a duplicate or follows the manifest")
                    if name == MANIFEST and file and member.size <= MANIFEST_MAX:
                        content = file.read()
                        continue
                    # Reject paths outside the volumes, links and devices.
                    is_inside = parts[0] in volumes and not {"", ".", ".."} & {*parts}
                    if not (is_inside and (file or member.isdir())):
                        raise Rejected(f"{name!r} is not a file or folder of a volume")
                    found[name] = digest(file) if file else ""
                    if file:
                        size += (member.size // BLOCK + 2) * BLOCK  # one more for its metadata
            # Zeros follow the tar file. gzip verifies its checksum only at the very end.
            while rest := packed.read(1 << 20):
                if rest.strip(b"\0"):
                    raise Rejected("it is damaged: data follows its end")
        manifest: dict[str, Any] = json.loads(content)
        manifest["created"] = str(datetime.fromisoformat(manifest["created"]))
        expected = {"format": FORMAT, "project": project, "volumes": volumes}
        for key, value in expected.items():
            if manifest[key] != value:
                raise Rejected(f"{key}: expected {value!r}, got {manifest[key]!r}")
        if manifest["sha256"] != found:
            raise Rejected("it is damaged: files and checksums differ")
    except UNREADABLE as error:
        raise Rejected(f"it is damaged, incomplete, or not an archive: {error!r}") from error
    return manifest | {"size": size}


def restore(path: Path, size: int) -> None:
    """Replace the content of the volumes with a verified archive."""
    disks = [os.statvfs(volume) for volume in VOLUMES.iterdir()]
    used = sum(each.lstat().st_blocks * 512 for each in VOLUMES.rglob("*"))
    missing = size - used - min(disk.f_bavail * disk.f_frsize for disk in disks)
    if missing > 0:
        raise Rejected(f"not enough disk space: it requires {missing >> 20} MiB more")
    for child in [child for volume in VOLUMES.iterdir() for child in volume.iterdir()]:
        shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()
    with tarfile.open(path, "r|gz") as archive:
        members = (member for member in archive if member.name != MANIFEST)
        # Other filters change file modes.
        archive.extractall(  # noqa: S202 (verify() has checked names and types)
            VOLUMES, members, numeric_owner=True, filter="fully_trusted"
        )


def main(command: str, project: str, *volumes: str) -> None:
    """Run one of the commands write, verify and restore."""
    archive = Path("/archive")
    try:
        if command == "write":
            return write(project, sys.stdout.buffer)
        manifest = verify(archive, project, sorted(volumes))
        if command == "restore":
            return restore(archive, manifest["size"])
    except Rejected as error:
        what = "Nothing was saved" if command == "write" else "The archive is rejected"
        sys.exit(f"{what}: {error}.")
    files = sum(map(bool, manifest["sha256"].values()))
    print(f"The archive of {project} from {manifest['created']} is complete: {files} files.")


if __name__ == "__main__":
    main(*sys.argv[1:])
