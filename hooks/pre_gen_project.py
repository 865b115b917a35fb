"""Reject answers that would generate a broken project, before any file is written.

Cookiecutter renders this file and runs it in the new, empty folder. If it fails, cookiecutter
deletes that folder. The only Jinja is the string literal in main(), so tests can import this file
unrendered.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping

Answers = Mapping[str, object]

# Replaces an answer that could lead outside the output folder; see cookiecutter.json.
# __answered_slug then has the original answer.
SLUG_STAND_IN = "refused-project-slug"

SLUG = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")  # my-service
SLUG_MAX = 50
PORT = re.compile(r"[1-9][0-9]{0,4}")  # 8000
PORT_MAX = 65535
PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")  # /api/v1
PREFIX_MAX = 100
# First path segments that FastAPI and the metrics endpoint already serve.
RESERVED_SEGMENTS = ("docs", "redoc", "openapi.json", "metrics")
PYTHON_VERSIONS = ("3.11", "3.12", "3.13", "3.14")
YES_NO = ("yes", "no")
# Each of these ends or changes a quoted string in TOML, YAML, Python, Compose, Make or HTML.
FORBIDDEN_IN_TEXT = "\"'`\\{}$<>"
NAME_MAX = 100
DESCRIPTION_MAX = 200
SHOWN_MAX = 80

STACK_PORTS = (
    "grafana_port",
    "prometheus_port",
    "loki_port",
    "tempo_http_port",
    "tempo_otlp_grpc_port",
    "tempo_otlp_http_port",
)
# Also published by the overlay. No question asks for it, but .env can change it.
FIXED_PORTS = {"9093": "Alertmanager"}


def is_slug(value: str) -> bool:
    """Return whether a value is a valid name for a Compose project, network, image and package."""
    return len(value) <= SLUG_MAX and SLUG.fullmatch(value) is not None


def is_port(value: str) -> bool:
    """Return whether a value is a TCP port in decimal digits."""
    return PORT.fullmatch(value) is not None and int(value) <= PORT_MAX


def is_prefix(value: str) -> bool:
    """Return whether a value is a valid path prefix for routes."""
    if len(value) > PREFIX_MAX or not PREFIX.fullmatch(value):
        return False
    segments = value.split("/")[1:]
    # Clients resolve "." and "..", so they could never request such a route.
    return segments[0] not in RESERVED_SEGMENTS and not {".", ".."} & set(segments)


def is_text(value: str, max_length: int, *, may_be_empty: bool = False) -> bool:
    """Return whether a value is safe in the quoted strings of all generated files."""
    return (
        (may_be_empty or value != "")
        and len(value) <= max_length
        and value.isprintable()
        and value == value.strip()
        and not set(value) & set(FORBIDDEN_IN_TEXT)
    )


def is_name(value: str) -> bool:
    """Return whether a value is a valid name of a project or author."""
    return is_text(value, NAME_MAX)


def is_description(value: str) -> bool:
    """Return whether a value is a valid description, which may be empty."""
    return is_text(value, DESCRIPTION_MAX, may_be_empty=True)


TEXT_RULE = (
    "printable characters on one line, no leading or trailing space, none of "
    f"{' '.join(FORBIDDEN_IN_TEXT)} (a typographic \u2019 is allowed)"
)
PORT_RULE = f"a number from 1 to {PORT_MAX}, digits only"

# variable -> (test, what the value must be, valid example)
RULES: dict[str, tuple[Callable[[str], bool], str, str]] = {
    "project_name": (is_name, f"1 to {NAME_MAX} {TEXT_RULE}", "My Service"),
    "project_slug": (
        is_slug,
        f"at most {SLUG_MAX} lower-case letters a-z and digits, starting with a letter, "
        "single hyphens or underscores between them",
        "my-service",
    ),
    "description": (is_description, f"up to {DESCRIPTION_MAX} {TEXT_RULE}", "Takes orders."),
    "author": (is_name, f"1 to {NAME_MAX} {TEXT_RULE}", "Ada Lovelace"),
    "python_version": (
        PYTHON_VERSIONS.__contains__,
        f"one of {', '.join(PYTHON_VERSIONS)}",
        "3.13",
    ),
    "backend_port": (is_port, PORT_RULE, "8000"),
    "backend_api_prefix": (
        is_prefix,
        f"at most {PREFIX_MAX} characters: a slash, then letters, digits and . _ ~ - "
        "separated by single slashes, no trailing slash, no segment . or .., and not starting "
        f"with {', '.join('/' + segment for segment in RESERVED_SEGMENTS)}",
        "/api/v1",
    ),
    "include_observability": (YES_NO.__contains__, "yes or no", "yes"),
    "grafana_port": (is_port, PORT_RULE, "3000"),
    "prometheus_port": (is_port, PORT_RULE, "9090"),
    "loki_port": (is_port, PORT_RULE, "3100"),
    "tempo_http_port": (is_port, PORT_RULE, "3200"),
    "tempo_otlp_grpc_port": (is_port, PORT_RULE, "4317"),
    "tempo_otlp_http_port": (is_port, PORT_RULE, "4318"),
}


def shown(value: object) -> str:
    """Return the repr of a value, truncated if it is very long."""
    text = repr(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}... (truncated)"


def answered(answers: Answers) -> dict[str, object]:
    """Return the answers to check: the original slug, and only the ports that are used."""
    result = {name: answers.get(name) for name in RULES}
    if result["project_slug"] == SLUG_STAND_IN:
        result["project_slug"] = answers.get("__answered_slug", SLUG_STAND_IN)
    if result["include_observability"] == "no":
        # Cookiecutter asks for the ports of the stack anyway. They are not used, so ignore them:
        # backend_port=3000 must not conflict with the default port of Grafana.
        for name in STACK_PORTS:
            del result[name]
    return result


def find_problems(answers: Answers) -> list[str]:
    """Return one line for each invalid answer."""
    problems = []
    used = answered(answers)
    with_stack = STACK_PORTS[0] in used
    port_taken_by = dict(FIXED_PORTS) if with_stack else {}
    for name, value in used.items():
        is_valid, allowed, example = RULES[name]
        if not isinstance(value, str) or not is_valid(value):
            problems.append(
                f"{name}: {shown(value)} is invalid: must be {allowed}; example: {example}"
            )
        elif name.endswith("_port"):
            other = port_taken_by.setdefault(value, name)
            if other != name:
                problems.append(
                    f"{name}: {shown(value)} is already used by {other}: must be {PORT_RULE}, "
                    f"unique; example: {example if example != value else int(value) + 1}"
                )
    return problems


def main() -> int:
    """Print all problems and return the exit code."""
    # tojson escapes quotes, newlines and backslashes, so no answer can end this literal.
    problems = find_problems(json.loads(r"""{{ cookiecutter | tojson }}"""))
    if not problems:
        return 0
    lines = ["", "These answers are invalid, so nothing was generated:", *problems, ""]
    sys.stderr.write("\n".join(lines))
    return 1


if __name__ == "__main__":
    sys.exit(main())
