"""The merged Compose model of the core, and of the core with the overlay."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.engine import CORE, OVERLAY, configuration
from tests.support.container_rules import EXCEPTIONS, RULES, broken_rules
from tests.support.prerequisites import unavailable
from tests.support.template import tree

STACK = {
    *("prometheus", "alertmanager", "node-exporter", "loki", "promtail"),
    *("docker-proxy", "tempo", "grafana"),
}
ONE_SHOT = {"obs-check"}
VOLUMES = {
    "backend": {"/data"},
    "prometheus": {"/prometheus"},
    "alertmanager": {"/alertmanager"},
    "loki": {"/loki"},
    "promtail": {"/var/lib/promtail"},
    "tempo": {"/var/tempo"},
    "grafana": {"/var/lib/grafana"},
}
# ${LOKI_PORT:-3100}, ${GRAFANA_ADMIN_PASSWORD:?set it in .env} or ${METRICS_TOKEN:+yes}
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::(?:[-?]([^${}]*)|\+[^${}]*))?\}")

Services = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def model(yes_project: Path, docker: str) -> dict[str, Any]:
    return configuration(yes_project, OVERLAY)


@pytest.fixture(scope="module")
def services(model: dict[str, Any]) -> Services:
    merged: Services = model["services"]
    return merged


@pytest.fixture(scope="module")
def core(yes_project: Path, docker: str) -> dict[str, Any]:
    backend: dict[str, Any] = configuration(yes_project, CORE)["services"]["backend"]
    return backend


def test_overlay_adds_exactly_the_services_of_the_stack(services: Services) -> None:
    assert services.keys() == {"backend"} | STACK | ONE_SHOT


def test_overlay_changes_only_these_settings_of_the_backend(
    core: dict[str, Any], services: Services
) -> None:
    changed = {key for key in services["backend"] if services["backend"][key] != core.get(key)}
    assert changed == {"image", "build", "command", "environment"}
    assert "depends_on" not in services["backend"]


def test_requests_inside_the_stack_bypass_proxies(services: Services) -> None:
    checks = [service["healthcheck"]["test"] for name, service in services.items() if name in STACK]
    for check in checks:
        assert "wget" not in check or check[2:4] == ["-Y", "off"]
    assert services["backend"]["environment"]["no_grpc_proxy"] == "tempo"
    assert services["promtail"]["environment"]["NO_PROXY"] == "docker-proxy"
    assert services["grafana"]["environment"]["NO_PROXY"] == "prometheus,loki,tempo"


def test_core_has_no_extensions(core: dict[str, Any]) -> None:
    assert (core["image"], core.get("environment")) == ("my-service-backend:core", None)


def test_backend_has_more_cpu_shares_than_the_stack(services: Services) -> None:
    assert "cpu_shares" not in services["backend"]  # default: 1,024
    assert {services[name]["cpu_shares"] for name in STACK} == {256}


def test_go_memory_limit_is_below_the_container_limit(services: Services) -> None:
    """Prometheus sets its limit itself; the other services are small."""
    for name in ("loki", "promtail", "tempo"):
        limit = int(services[name]["mem_limit"])
        soft = services[name]["environment"]["GOMEMLIMIT"].removesuffix("MiB")
        assert 0.75 * limit <= int(soft) * 2**20 <= 0.85 * limit, name
    grafana = services["grafana"]  # its plugins are processes of their own
    soft = grafana["environment"]["GOMEMLIMIT"].removesuffix("MiB")
    assert 0.5 * int(grafana["mem_limit"]) <= int(soft) * 2**20 <= 0.7 * int(grafana["mem_limit"])


def test_all_ports_are_bound_to_loopback(services: Services) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 8
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    assert len({port["published"] for port in ports}) == 8


@pytest.mark.usefixtures("docker")
def test_each_bind_address_opens_only_its_service(yes_project: Path, tmp_path: Path) -> None:
    project = shutil.copytree(yes_project, tmp_path / "project")
    for variable in ("BIND_ADDRESS", "BACKEND_BIND_ADDRESS"):
        (project / ".env").write_text(f"GRAFANA_ADMIN_PASSWORD=x\n{variable}=192.0.2.1\n")
        services = configuration(project, OVERLAY)["services"]
        opened = {
            name
            for name, service in services.items()
            if "192.0.2.1" in {port["host_ip"] for port in service.get("ports", [])}
        }
        # The other services are unauthenticated.
        assert opened == {"backend" if variable.startswith("BACKEND") else "grafana"}


VIOLATIONS: dict[str, dict[str, Any]] = {
    "is not root": {"user": "0:0"},
    "has no capabilities": {"cap_add": ["NET_ADMIN"]},
    "gains no privileges": {"security_opt": []},
    "is confined by seccomp and AppArmor": {
        "security_opt": ["no-new-privileges:true", "seccomp=unconfined"]
    },
    "is confined by SELinux": {"security_opt": ["no-new-privileges:true", "label=disable"]},
    "is not privileged": {"privileged": True},
    "has a read-only root file system": {"read_only": False},
    "has a limit of processes": {"pids_limit": 0},
    "has a memory limit": {"mem_limit": None},
    "has its own namespaces": {"pid": "host"},
    "has no additional groups": {"group_add": ["docker"]},
    "has no devices": {"devices": ["/dev/kvm"]},
    "has read-only bind mounts": {"volumes": [{"type": "bind", "source": "/"}]},
}


def test_each_rule_finds_a_service_that_violates_it(services: Services) -> None:
    assert VIOLATIONS.keys() == RULES.keys()
    for rule, violation in VIOLATIONS.items():
        assert broken_rules(services["prometheus"] | violation) == [rule]


def test_services_follow_the_security_rules(services: Services) -> None:
    broken = {(name, rule) for name, service in services.items() for rule in broken_rules(service)}
    # The model does not contain the user of an image.
    assert broken == EXCEPTIONS.keys() - {("promtail", "is not root")}
    assert not [name for name, service in services.items() if "container_name" in service]


def test_every_service_has_a_restart_policy_log_rotation_and_a_health_check(
    services: Services,
) -> None:
    for name, service in services.items():
        assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped"), name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name
        assert ("healthcheck" in service) == (name not in ONE_SHOT), name


def test_images_of_the_stack_are_pinned_by_version(services: Services) -> None:
    for name in STACK:
        # prom/prometheus:v3.16.0 or haproxy:3.2.25-alpine
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+(-alpine)?", services[name]["image"]), name


def test_web_pages_of_other_origins_cannot_read_metrics(services: Services) -> None:
    assert "--web.cors.origin=^$$" in services["prometheus"]["command"]


def test_clients_cannot_delete_log_lines_and_tempo_limits_its_series(yes_project: Path) -> None:
    folder = yes_project / "observability"
    loki = yaml.safe_load((folder / "loki/loki-config.yml").read_text())
    assert loki["limits_config"]["deletion_mode"] == "disabled"
    tempo = yaml.safe_load((folder / "tempo/tempo.yml").read_text())
    assert 0 < tempo["overrides"]["defaults"]["metrics_generator"]["max_active_series"] <= 20_000


def test_data_is_stored_on_named_volumes(services: Services) -> None:
    for name, service in services.items():
        mounts = service.get("volumes", [])
        volumes = [mount for mount in mounts if mount["type"] == "volume"]
        data = {mount["target"] for mount in volumes if not mount.get("read_only")}
        assert data == VOLUMES.get(name, set()), name


def test_only_docker_proxy_has_the_docker_socket(services: Services) -> None:
    found = [name for name, service in services.items() if "docker.sock" in str(service)]
    assert found == ["docker-proxy"]
    assert list(services["docker-proxy"]["networks"]) == ["docker-api"]
    assert "ports" not in services["docker-proxy"]
    assert {n for n, s in services.items() if "docker-api" in s["networks"]} == {
        "docker-proxy",
        "promtail",
    }


@pytest.mark.usefixtures("docker")
def test_docker_socket_can_be_set(yes_project: Path, tmp_path: Path) -> None:
    project = shutil.copytree(yes_project, tmp_path / "project")
    socket = "/run/user/1000/podman/podman.sock"
    (project / ".env").write_text(f"GRAFANA_ADMIN_PASSWORD=x\nDOCKER_SOCKET={socket}\n")
    proxy = configuration(project, OVERLAY)["services"]["docker-proxy"]
    mounts = {mount["source"]: mount["target"] for mount in proxy["volumes"]}
    assert mounts[socket] == "/var/run/docker.sock"
    assert "/var/run/docker.sock" not in mounts
    assert socket in (project / ".env.example").read_text()


def test_security_page_lists_the_exceptions_to_the_rules(yes_project: Path) -> None:
    page = (yes_project / "observability/SECURITY.md").read_text(encoding="utf-8")
    table = page.split("Only these differ:", 1)[1].split("\n\n", 2)[1]
    # | `promtail` | be root | its image expects root |
    listed = {
        (service, exception)
        for service, cell in re.findall(r"(?m)^\| `([\w-]+)` \| (.*?) \|", table)
        for exception in cell.split("; ")
    }
    texts = {
        "is not root": "be root",
        "has read-only bind mounts": "open the engine's socket for writing",
        "is confined by SELinux": "be without SELinux",
        "has its own namespaces": "be in the host's user namespace",
    }
    assert listed == {(service, texts[rule]) for service, rule in EXCEPTIONS}


def test_network_is_named_after_the_project(model: dict[str, Any]) -> None:
    assert model["networks"]["default"]["name"] == "my-service-network"
    assert model["networks"]["docker-api"]["internal"] is True


@pytest.mark.parametrize("variant", ["yes", "no"])
def test_env_example_lists_every_variable_with_its_default(
    request: pytest.FixtureRequest, variant: str
) -> None:
    project: Path = request.getfixturevalue(f"{variant}_project")
    files = OVERLAY if variant == "yes" else CORE
    text = "\n".join((project / file).read_text() for file in files)
    text = re.sub(r"(?m)^#.*", "", text)
    used: dict[str, str] = {}
    while found := VARIABLE.findall(text):  # a default can contain variables
        used |= dict(found)
        text = VARIABLE.sub(r"\2", text)
    del used["COMPOSE_PROJECT_NAME"]
    lines = (project / ".env.example").read_text().splitlines()
    # LOKI_PORT=3100, or commented out: # LOKI_PORT=3100
    listed = dict(re.findall(r"^(?:# )?([A-Z_]+)=(.*)$", "\n".join(lines), re.MULTILINE))
    if variant == "yes":
        assert listed.pop("GRAFANA_ADMIN_PASSWORD") == ""
        assert "set it in .env" in used.pop("GRAFANA_ADMIN_PASSWORD")
    assert listed == used


@pytest.mark.usefixtures("docker")
def test_missing_password_is_an_error_that_names_the_fix(yes_project: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(yes_project, project)
    (project / ".env").unlink()
    command = ["docker", "compose", *(f"--file={file}" for file in OVERLAY), "config"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "GRAFANA_ADMIN_PASSWORD" in done.stderr
    assert "make obs-up" in done.stderr


def test_promtool_accepts_the_prometheus_configuration(yes_project: Path, tmp_path: Path) -> None:
    if not shutil.which("promtool"):
        unavailable("the program promtool is missing")
    folder = shutil.copytree(yes_project / "observability" / "prometheus", tmp_path / "prometheus")
    config = folder / "prometheus.yml"
    (
        folder / "metrics-token"
    ).touch()  # promtool requires the file, which start.sh creates in the container
    text = config.read_text("utf-8").replace("/tmp/metrics-token", "metrics-token")  # noqa: S108
    config.write_text(text, "utf-8")
    done = subprocess.run(
        ["promtool", "check", "config", "--lint=all", "--lint-fatal", str(config)],
        env=os.environ | {"PROJECT": "my-service", "GRAFANA_URL": "http://127.0.0.1:3000"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_yaml_files_parse(yes_project: Path) -> None:
    files = [name for name in tree(yes_project) if name.endswith(".yml")]
    assert len(files) >= 7
    for name in files:
        assert yaml.safe_load((yes_project / name).read_text()), name
