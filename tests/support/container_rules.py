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
    "is held by seccomp and AppArmor": lambda s: "unconfined" not in str(s.get("security_opt")),
    "is held by SELinux": lambda s: "label=disable" not in s.get("security_opt", []),
    "is not privileged": lambda s: not s.get("privileged"),
    "its root is read-only": lambda s: s.get("read_only") is True,
    "its processes are limited": lambda s: 0 < int(s.get("pids_limit") or 0) <= 512,
    "its memory is limited": lambda s: 0 < int(s.get("mem_limit") or 0) <= 2**30,
    "has namespaces of its own": lambda s: not {"host"} & {s.get(n) for n in ("pid", "ipc", "network_mode", "userns_mode", "uts")},
    "is in no group of the host": lambda s: not s.get("group_add"),
    "sees no devices": lambda s: not s.get("devices") and not s.get("device_cgroup_rules"),
    "mounts of the host are read-only": lambda s: all(
        mount.get("read_only") for mount in s.get("volumes", []) if mount["type"] == "bind"
    ),
}  # fmt: skip

# What only one container may do: (service, rule) -> why.
EXCEPTIONS = {
    (
        "docker-proxy",
        "mounts of the host are read-only",
    ): "a socket is opened for writing to read from it",
    ("docker-proxy", "is not root"): "the engine's socket belongs to root; it has no capabilities",
    ("docker-proxy", "is held by SELinux"): "SELinux keeps confined containers from the socket",
    (
        "docker-proxy",
        "has namespaces of its own",
    ): "with userns-remap its root would not be the socket's owner",
    (
        "promtail",
        "is not root",
    ): "its image is made for root, who owns its volume; it has no capabilities",
}


def broken_rules(service: Service) -> list[str]:
    """Return the rules that a service of the Compose model does not keep."""
    return [rule for rule, keeps in RULES.items() if not keeps(service)]


def as_service(container: str) -> Service:
    """Return a running container in the words of the Compose model, as the engine tells it.

    The user is that of its processes, which may differ from what its image and the model say.
    """
    (found,) = json.loads(docker("inspect", container))
    host = found["HostConfig"]
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
            {"type": mount["Type"], "read_only": not mount["RW"]} for mount in found["Mounts"]
        ],
    }
