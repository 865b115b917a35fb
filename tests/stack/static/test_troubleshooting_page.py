"""The troubleshooting page quotes messages that the programs print."""

import re
from pathlib import Path

# Printed by Docker and the shell.
EXTERNAL = {"port is already allocated", "Permission denied"}


def test_quoted_messages_exist_in_the_programs(yes_project: Path) -> None:
    page = (yes_project / "observability/docs/troubleshooting.md").read_text("utf-8")
    # | `has no digest` in ...   but not: | `podman-compose` |
    messages = {each for each in re.findall(r"(?m)^\| `([^`]+)`", page) if " " in each}
    programs = [each for kind in ("*.py", "*.sh") for each in yes_project.rglob(kind)]
    printed = "".join(program.read_text("utf-8") for program in programs)
    assert messages - EXTERNAL
    assert [each for each in messages - EXTERNAL if each not in printed] == []
