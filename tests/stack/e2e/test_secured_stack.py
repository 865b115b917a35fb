"""The overlay with a metrics token and without anonymous access: sign-in, secrets, backup and restore."""

import gzip
import io
import json
import secrets
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from scripts.engine import CORE
from tests.support.backend import ITEMS
from tests.support.compose_stack import FRESH_SECONDS, Stack, running_stack
from tests.support.docker import docker
from tests.support.template import Bake
from tests.support.waiting import wait_until

TOKEN = secrets.token_hex(16)
PAST = f'max_over_time(http_requests_total{{endpoint="{ITEMS}",method="GET"}}[1h])'


@pytest.fixture(scope="module")
def secured(bake: Bake) -> Iterator[Stack]:
    project = bake(project_slug="e2e-service")
    with (project / ".env").open("a", encoding="utf-8") as env:
        env.write(f"METRICS_TOKEN={TOKEN}\nGRAFANA_ANONYMOUS=false\n")
    with running_stack(project) as running:
        yield running


def folder(stack: Stack) -> Path:
    return Path(stack.compose.context)


def make(stack: Stack, *arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    """Run a target of the project's Makefile; ``answer`` is its standard input."""
    return subprocess.run(
        ["make", *arguments],
        cwd=folder(stack),
        input=answer,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_metrics_require_the_token_and_prometheus_sends_it(secured: Stack) -> None:
    secured.require("prometheus")
    assert requests.get(secured.url("backend") + "/metrics", timeout=10).status_code == 401
    up = 'up{job="backend"}'
    wait_until(lambda: list(secured.query(up).values()) == [1.0], up, timeout=FRESH_SECONDS)


def test_grafana_requires_sign_in(secured: Stack) -> None:
    secured.require("grafana")
    response = requests.get(secured.url("grafana") + "/api/dashboards/home", timeout=10)
    assert response.status_code == 401


def test_secrets_are_not_in_the_image_the_logs_or_the_core(secured: Stack) -> None:
    env = dict(
        line.split("=", 1)
        for line in (folder(secured) / ".env").read_text().splitlines()
        if "=" in line and not line.startswith("#")
    )
    image = "e2e-service-backend:observability"
    texts = {
        "layers": docker("history", "--no-trunc", image) + docker("image", "inspect", image),
        "files": docker(
            *("run", "--rm", "--network=none", "--user=0:0", image),
            *(
                "grep",
                "-rlsF",
                "-e",
                env["GRAFANA_ADMIN_PASSWORD"],
                "-e",
                TOKEN,
                "/srv",
                "/opt",
                "/data",
            ),
            check=False,
        ),
        "logs": secured.run("logs").stdout,
        "core": subprocess.run(
            ["docker", "compose", *(f"--file={name}" for name in CORE), "config"],
            cwd=folder(secured),
            capture_output=True,
            text=True,
            check=True,
        ).stdout,
    }
    assert "backend" in texts["logs"]
    assert texts["files"] == ""
    for place, text in texts.items():
        assert env["GRAFANA_ADMIN_PASSWORD"] not in text, place
        assert TOKEN not in text, place


@pytest.fixture(scope="module")
def archive(secured: Stack) -> Path:
    """Return an archive of the stack that contains a counted request."""
    secured.require("prometheus")
    requests.get(secured.url("backend") + ITEMS, timeout=10)
    wait_until(lambda: sum(secured.query(PAST).values()), "the request in Prometheus")
    done = make(secured, "obs-backup", "FILE=saved.tar.gz")
    assert done.returncode == 0, done.stdout
    secured.wait_for_health("healthy", secured.services)
    return folder(secured) / "saved.tar.gz"


def test_backup_is_readable_only_by_its_owner_and_the_stack_runs_again(
    secured: Stack, archive: Path
) -> None:
    assert archive.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in archive.parent.glob("saved*")] == ["saved.tar.gz"]
    secured.wait_for_health("healthy", secured.services)
    again = make(secured, "obs-backup", "FILE=saved.tar.gz")
    assert (again.returncode, "saved.tar.gz already exists" in again.stdout) == (2, True)


def test_archive_has_every_volume_except_that_of_the_backend(secured: Stack, archive: Path) -> None:
    with tarfile.open(archive) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert "prometheus-data" in manifest["volumes"]
    expected = set(secured.run("config", "--volumes").stdout.split()) - {"backend-data"}
    assert set(manifest["volumes"]) == expected


@pytest.fixture
def foreign_volume(secured: Stack) -> Iterator[str]:
    """Create a volume of another project, whose name starts with the name of this project."""
    other = f"{secured.project}x"
    label = f"--label=com.docker.compose.project={other}"
    name = docker("volume", "create", label, f"{other}_prometheus-data").strip()
    yield name
    docker("volume", "rm", name)


def volumes() -> set[str]:
    return set(docker("volume", "ls", "--quiet").split())


def test_restore_recovers_what_obs_clean_deleted(
    secured: Stack, archive: Path, foreign_volume: str
) -> None:
    counted = sum(secured.query(PAST).values())
    item = requests.post(secured.url("backend") + ITEMS, json={"name": "kept"}, timeout=10).json()
    before = volumes()
    cleaned = make(secured, "obs-clean", answer="yes\n")
    assert cleaned.returncode == 0, cleaned.stdout
    assert requests.get(secured.url("backend") + ITEMS, timeout=10).ok  # still runs
    deleted = before - volumes()
    assert f"{secured.project}_prometheus-data" in deleted
    assert {name.split("_")[0] for name in deleted} == {secured.project}
    assert foreign_volume not in deleted
    assert f"{secured.project}_backend-data" not in deleted
    restored = make(secured, "obs-restore", "FILE=saved.tar.gz", answer="yes\n")
    assert restored.returncode == 0, restored.stdout
    secured.compose.start()
    found = requests.get(f"{secured.url('backend')}{ITEMS}/{item['id']}", timeout=10)
    assert found.json() == item
    wait_until(lambda: sum(secured.query(PAST).values()) >= counted > 0, "the old metrics")
    secured.wait_for_health("healthy", secured.services)


def test_restore_requires_confirmation(secured: Stack, archive: Path) -> None:
    for answer in ("", "y\n", "no\n"):
        done = make(secured, "obs-restore", "FILE=saved.tar.gz", answer=answer)
        assert (done.returncode, "Nothing was changed" in done.stdout) == (2, True)
    assert secured.health("prometheus") == "healthy"


def changed_copy(archive: Path, change: Callable[[tarfile.TarInfo, bytes], bytes | None]) -> bytes:
    """Copy an archive; ``change`` returns the new content of a member, or None to omit it."""
    output = io.BytesIO()
    with tarfile.open(archive) as old, tarfile.open(fileobj=output, mode="w:gz") as new:
        for member in old:
            file = old.extractfile(member)
            content = change(member, file.read() if file else b"")
            if content is not None:
                member.size = len(content)
                new.addfile(member, io.BytesIO(content))
    return output.getvalue()


def is_manifest(member: tarfile.TarInfo) -> bool:
    return member.name == "manifest.json"


def replace_in_manifest(old: str, new: str) -> Callable[[tarfile.TarInfo, bytes], bytes]:
    return lambda member, content: (
        content.replace(old.encode(), new.encode()) if is_manifest(member) else content
    )


def move_outside(member: tarfile.TarInfo, content: bytes) -> bytes:
    member.name = member.name if is_manifest(member) else f"../{member.name}"
    return content


def replace_with_link(member: tarfile.TarInfo, content: bytes) -> bytes:
    if member.isreg() and not is_manifest(member):
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        return b""
    return content


def flip_a_byte(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


BROKEN: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "empty": ("not an archive", lambda path: b""),
    "text": ("not an archive", lambda path: b"not an archive\n" * 100),
    "compressed text": ("not an archive", lambda path: gzip.compress(b"x" * 2000)),
    "truncated": ("is rejected", lambda path: path.read_bytes()[:-1000]),
    "truncated to half": (
        "is rejected",
        lambda path: path.read_bytes()[: path.stat().st_size // 2],
    ),
    "changed byte": ("is rejected", lambda path: flip_a_byte(path.read_bytes())),
    "no manifest": (
        "incomplete",
        lambda path: changed_copy(path, lambda m, c: None if is_manifest(m) else c),
    ),
    "changed file": (
        "files and checksums differ",
        lambda path: changed_copy(path, lambda m, c: c if is_manifest(m) else c + b"x" * bool(c)),
    ),
    "missing file": (
        "files and checksums differ",
        lambda path: changed_copy(
            path, lambda m, c: None if m.isreg() and not is_manifest(m) else c
        ),
    ),
    "other project": (
        "project: expected",
        lambda path: changed_copy(path, replace_in_manifest("e2e-", "x-")),
    ),
    "other format": (
        "format: expected",
        lambda path: changed_copy(path, replace_in_manifest("archive/2", "9")),
    ),
    "other volumes": (
        "volumes: expected",
        lambda path: changed_copy(path, replace_in_manifest('"loki-data",', "")),
    ),
    "paths outside": (
        "is not a file or folder of a volume",
        lambda path: changed_copy(path, move_outside),
    ),
    "links": (
        "is not a file or folder of a volume",
        lambda path: changed_copy(path, replace_with_link),
    ),
}


@pytest.mark.parametrize(("message", "make_broken"), BROKEN.values(), ids=BROKEN)
def test_invalid_archive_is_rejected_before_anything_changes(
    secured: Stack, archive: Path, message: str, make_broken: Callable[[Path], bytes]
) -> None:
    (folder(secured) / "broken.tar.gz").write_bytes(make_broken(archive))
    containers = secured.run("ps", "--quiet").stdout
    done = make(secured, "obs-restore", "FILE=broken.tar.gz", answer="yes\n")
    assert done.returncode == 2
    assert "The archive is rejected" in done.stdout
    assert message in done.stdout
    assert "Type yes" not in done.stdout
    assert secured.run("ps", "--quiet").stdout == containers
    assert secured.health("prometheus") == "healthy"
