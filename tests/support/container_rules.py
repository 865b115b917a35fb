"""Security rules for containers, applied to the Compose model and to running containers."""

import json
from collections.abc import Callable
from typing import Any

from tests.support.docker import docker

Service = dict[str, Any]

RULES: dict[str, Callable[[Service], bool]] = {
    "is not root": lambda s: not str(s.get("user", "")).startswith(("0", "root")),
    "has no capabilities": lambda s: s.get("cap_drop") == ["ALL"] and not s.get("cap_add"),
    "gains no privileges": lambda s: "no-new-privileges:true" in s.get("security_opt", []),
    "is confined by seccomp and AppArmor": lambda s: "unconfined" not in str(s.get("security_opt")),
    "is confined by SELinux": lambda s: "label=disable" not in s.get("security_opt", []),
    "is not privileged": lambda s: not s.get("privileged"),
    "has a read-only root file system": lambda s: s.get("read_only") is True,
    "has a limit of processes": lambda s: 0 < int(s.get("pids_limit") or 0) <= 512,
    "has a memory limit": lambda s: 0 < int(s.get("mem_limit") or 0) <= 2**30,
    "has its own namespaces": lambda s: not {"host"} & {s.get(n) for n in ("pid", "ipc", "network_mode", "userns_mode", "uts")},
    "has no additional groups": lambda s: not s.get("group_add"),
    "has no devices": lambda s: not s.get("devices") and not s.get("device_cgroup_rules"),
    "has read-only bind mounts": lambda s: all(
        mount.get("read_only") for mount in s.get("volumes", []) if mount["type"] == "bind"
    ),
}  # fmt: skip

# (service, rule) -> reason.
EXCEPTIONS = {
    ("docker-proxy", "has read-only bind mounts"): "a read request is written to the socket",
    ("docker-proxy", "is not root"): "root owns the Docker socket; it has no capabilities",
    ("docker-proxy", "is confined by SELinux"): "SELinux denies the socket to confined containers",
    (
        "docker-proxy",
        "has its own namespaces",
    ): "with userns-remap, root in a container is another user than the socket's owner",
    ("promtail", "is not root"): "its image runs as root, who owns its volume; no capabilities",
}


def broken_rules(service: Service) -> list[str]:
    """Return the rules that a service of the Compose model violates."""
    return [rule for rule, is_met in RULES.items() if not is_met(service)]


def as_service(container: str) -> Service:
    """Return the settings of a running container in the form of the Compose model.

    The user is that of its processes, which may differ from the user of the image or the model.
    """
    (inspected,) = json.loads(docker("inspect", container))
    host = inspected["HostConfig"]
    processes = docker("top", container, "-eo", "pid,uid").splitlines()[1:]
    users = [line.split()[1] for line in processes]
    return {
        "user": "0" if "0" in users else users[0],
        "cap_drop": host["CapDrop"],
        "cap_add": host["CapAdd"],
        "security_opt": host["SecurityOpt"],
        "privileged": host["Privileged"],
        "read_only": host["ReadonlyRootfs"],
        "pids_limit": host["PidsLimit"],
        "mem_limit": host["Memory"],
        "pid": host["PidMode"],
        "ipc": host["IpcMode"],
        "network_mode": host["NetworkMode"],
        "userns_mode": host["UsernsMode"],
        "uts": host["UTSMode"],
        "group_add": host["GroupAdd"],
        "devices": host["Devices"],
        "device_cgroup_rules": host["DeviceCgroupRules"],
        "volumes": [
            {"type": mount["Type"], "read_only": not mount["RW"]} for mount in inspected["Mounts"]
        ],
    }
