"""The overlay with a token for its metrics: who is let in, what is kept secret, what is saved and put back."""

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
    """Run a target of the stack's own Makefile."""
    return subprocess.run(
        ["make", *arguments],
        cwd=folder(stack),
        input=answer,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_prometheus_scrapes_with_the_token_and_nobody_without(secured: Stack) -> None:
    secured.need("prometheus")
    assert requests.get(secured.url("backend") + "/metrics", timeout=10).status_code == 401
    up = 'up{job="backend"}'
    wait_until(lambda: list(secured.query(up).values()) == [1.0], up, timeout=FRESH_SECONDS)


def test_nobody_looks_at_grafana_without_signing_in(secured: Stack) -> None:
    secured.need("grafana")
    answer = requests.get(secured.url("grafana") + "/api/dashboards/home", timeout=10)
    assert answer.status_code == 401


def test_secrets_are_in_no_image_no_log_and_not_in_the_core(secured: Stack) -> None:
    env = dict(
        line.split("=", 1)
        for line in (folder(secured) / ".env").read_text().splitlines()
        if "=" in line and not line.startswith("#")
    )
    image = "e2e-service-backend:observability"
    seen = {
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
    assert "backend" in seen["logs"]
    assert seen["files"] == ""
    for where, text in seen.items():
        assert env["GRAFANA_ADMIN_PASSWORD"] not in text, where
        assert TOKEN not in text, where


@pytest.fixture(scope="module")
def archive(secured: Stack) -> Path:
    """Return an archive of the stack, made after a request was counted."""
    secured.need("prometheus")
    requests.get(secured.url("backend") + ITEMS, timeout=10)
    wait_until(lambda: sum(secured.query(PAST).values()), "the request in Prometheus")
    done = make(secured, "obs-backup", "FILE=saved.tar.gz")
    assert done.returncode == 0, done.stdout
    secured.wait_for_health("healthy", secured.services)
    return folder(secured) / "saved.tar.gz"


def test_a_backup_is_for_its_owner_only_and_leaves_the_stack_running(
    secured: Stack, archive: Path
) -> None:
    assert archive.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in archive.parent.glob("saved*")] == ["saved.tar.gz"]
    secured.wait_for_health("healthy", secured.services)
    again = make(secured, "obs-backup", "FILE=saved.tar.gz")
    assert (again.returncode, "saved.tar.gz already exists" in again.stdout) == (2, True)


def test_an_archive_has_every_volume_but_the_services_own(secured: Stack, archive: Path) -> None:
    with tarfile.open(archive) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert "prometheus-data" in manifest["volumes"]
    own = set(secured.run("config", "--volumes").stdout.split()) - {"backend-data"}
    assert set(manifest["volumes"]) == own


@pytest.fixture
def foreign_volume(secured: Stack) -> Iterator[str]:
    """Make a volume of another project, whose name begins like ours."""
    other = f"{secured.project}x"
    label = f"--label=com.docker.compose.project={other}"
    name = docker("volume", "create", label, f"{other}_prometheus-data").strip()
    yield name
    docker("volume", "rm", name)


def volumes() -> set[str]:
    return set(docker("volume", "ls", "--quiet").split())


def test_what_was_deleted_is_there_again_after_a_restore(
    secured: Stack, archive: Path, foreign_volume: str
) -> None:
    counted = sum(secured.query(PAST).values())
    item = requests.post(secured.url("backend") + ITEMS, json={"name": "kept"}, timeout=10).json()
    before = volumes()
    cleaned = make(secured, "obs-clean", answer="yes\n")
    assert cleaned.returncode == 0, cleaned.stdout
    assert requests.get(secured.url("backend") + ITEMS, timeout=10).ok  # it goes on
    deleted = before - volumes()
    assert f"{secured.project}_prometheus-data" in deleted
    assert {name.split("_")[0] for name in deleted} == {secured.project}
    assert foreign_volume not in deleted
    assert f"{secured.project}_backend-data" not in deleted
    restored = make(secured, "obs-restore", "FILE=saved.tar.gz", answer="yes\n")
    assert restored.returncode == 0, restored.stdout
    secured.compose.start()
    kept = requests.get(f"{secured.url('backend')}{ITEMS}/{item['id']}", timeout=10)
    assert kept.json() == item
    wait_until(lambda: sum(secured.query(PAST).values()) >= counted > 0, "the old metrics")
    secured.wait_for_health("healthy", secured.services)


def test_a_restore_asks_first(secured: Stack, archive: Path) -> None:
    for answer in ("", "y\n", "no\n"):
        done = make(secured, "obs-restore", "FILE=saved.tar.gz", answer=answer)
        assert (done.returncode, "Nothing was changed" in done.stdout) == (2, True)
    assert secured.health("prometheus") == "healthy"


def rewritten(archive: Path, change: Callable[[tarfile.TarInfo, bytes], bytes | None]) -> bytes:
    """Return an archive that is in order, but for what ``change`` makes of each of its files."""
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


def in_manifest(old: str, new: str) -> Callable[[tarfile.TarInfo, bytes], bytes]:
    return lambda member, content: (
        content.replace(old.encode(), new.encode()) if is_manifest(member) else content
    )


def moved(member: tarfile.TarInfo, content: bytes) -> bytes:
    member.name = member.name if is_manifest(member) else f"../{member.name}"
    return content


def linked(member: tarfile.TarInfo, content: bytes) -> bytes:
    if member.isreg() and not is_manifest(member):
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        return b""
    return content


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


BROKEN: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "empty": ("not an archive", lambda path: b""),
    "text": ("not an archive", lambda path: b"not an archive\n" * 100),
    "other compressed": ("not an archive", lambda path: gzip.compress(b"x" * 2000)),
    "cut short": ("is rejected", lambda path: path.read_bytes()[:-1000]),
    "cut in half": ("is rejected", lambda path: path.read_bytes()[: path.stat().st_size // 2]),
    "one bit": ("is rejected", lambda path: flipped(path.read_bytes())),
    "no manifest": (
        "incomplete",
        lambda path: rewritten(path, lambda m, c: None if is_manifest(m) else c),
    ),
    "changed file": (
        "files and checksums differ",
        lambda path: rewritten(path, lambda m, c: c if is_manifest(m) else c + b"x" * bool(c)),
    ),
    "missing file": (
        "files and checksums differ",
        lambda path: rewritten(path, lambda m, c: None if m.isreg() and not is_manifest(m) else c),
    ),
    "other project": ("project: expected", lambda path: rewritten(path, in_manifest("e2e-", "x-"))),
    "other format": (
        "format: expected",
        lambda path: rewritten(path, in_manifest("archive/2", "9")),
    ),
    "other volumes": (
        "volumes: expected",
        lambda path: rewritten(path, in_manifest('"loki-data",', "")),
    ),
    "paths outside": ("is not a file or folder of a volume", lambda path: rewritten(path, moved)),
    "links": ("is not a file or folder of a volume", lambda path: rewritten(path, linked)),
}


@pytest.mark.parametrize(("message", "make_broken"), BROKEN.values(), ids=BROKEN)
def test_a_wrong_or_damaged_archive_is_refused_before_anything_is_touched(
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
