"""The project that cookiecutter generates from valid answers."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from hooks import pre_gen_project as pre
from tests.support.template import DATA, DEFAULTS, Bake, tree

GOOD = {
    "default": {},
    "without observability": {"include_observability": "no"},
    "name": {"project_name": "Zoë’s 1st: #service, 100% & more!", "project_slug": "zoe"},
    "slug": {"project_slug": "orders_api-2"},
    "longest slug": {"project_slug": "a" * 50},
    "shortest slug": {"project_slug": "a"},
    "slug that YAML would read as a boolean": {"project_slug": "true"},
    "slug that YAML would read as null": {"project_slug": "null"},
    "description": {"description": "Takes orders: 50% *more* & faster | #1 = yes [no] !important"},
    "no description": {"description": ""},
    "longest texts": {"project_name": "n" * 100, "description": "d" * 200, "author": "a" * 100},
    "author": {"author": "Ådne Ñandú & 東京, Inc. (3)"},
    "python 3.11": {"python_version": "3.11"},
    "python 3.14": {"python_version": "3.14"},
    "backend port": {"backend_port": "1"},
    "prefix": {"backend_api_prefix": "/v1.0/~a_b-c"},
    "shortest prefix": {"backend_api_prefix": "/a"},
    "ports": dict(zip(pre.STACK_PORTS, map(str, range(65530, 65536)), strict=True)),
    "port of a stack that is not included": {"include_observability": "no", "backend_port": "3000"},
}


def parse(path: Path) -> object:
    """Parse a file according to its suffix; other files return None."""
    if path.suffix == ".png":
        return None
    text = path.read_text(encoding="utf-8")
    match path.suffix:
        case ".py":
            return compile(text, str(path), "exec", ast.PyCF_ONLY_AST)
        case ".json":
            return json.loads(text)
        case ".toml":
            return tomllib.loads(text)
        case ".yml" | ".yaml":
            return yaml.load(text, yaml.CSafeLoader)  # ten times as fast as safe_load
    return None


def settings_of(project: Path) -> dict[str, object]:
    """Return the defaults in app/settings.py."""
    module = ast.parse((project / "backend/app/settings.py").read_text(encoding="utf-8"))
    return {
        node.target.id: node.value.value
        for node in ast.walk(module)
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and isinstance(node.value, ast.Constant)
    }


def check(project: Path, changed: dict[str, str]) -> None:
    """Assert that all files are rendered and can be parsed, and contain the answers unchanged."""
    answers = {**DEFAULTS, **changed}
    for name in tree(project):
        path = project / name
        parse(path)
        if not name.startswith("observability/"):
            # {{ cookiecutter.name }} or {% if ... %}
            assert not re.search(r"\{\{ ?cookiecutter|\{%", path.read_text(encoding="utf-8")), name

    prefix = answers["backend_api_prefix"]
    package: Any = parse(project / "backend/pyproject.toml")
    compose: Any = parse(project / "compose.yml")
    backend = compose["services"]["backend"]
    ports = backend["ports"]
    if answers["include_observability"] == "yes":
        overlay: Any = parse(project / "compose.observability.yml")
        ports = [*ports, *(p for s in overlay["services"].values() for p in s.get("ports", []))]

    assert project.name == compose["name"] == answers["project_slug"]
    assert package["project"]["name"] == f"{answers['project_slug']}-backend"
    assert package["project"]["description"] == answers["description"]
    assert package["project"]["authors"] == [{"name": answers["author"]}]
    assert f'"{prefix}") + "/health"' in backend["healthcheck"]["test"][-1]
    assert {
        "project_name": answers["project_name"],
        "description": answers["description"],
        "api_prefix": prefix,
    }.items() <= settings_of(project).items()
    dockerfile = (project / "backend/Dockerfile").read_text(encoding="utf-8")
    assert set(re.findall(r"FROM python:(\S+)-slim", dockerfile)) == {answers["python_version"]}
    for variable in pre.answered(answers):
        if variable.endswith("_port"):
            name = variable.upper()
            published = f":${{{name}:-{answers[variable]}}}:"
            assert len([port for port in ports if published in port]) == 1, variable
            example_of_env = (project / ".env.example").read_text(encoding="utf-8")
            assert f"\n# {name}={answers[variable]}\n" in example_of_env
    workflow: Any = parse(project / ".github/workflows/ci.yml")
    assert workflow["jobs"]["test"]["steps"][1]["with"] == {
        "python-version": answers["python_version"]
    }
    readme = (project / "README.md").read_text(encoding="utf-8")
    assert readme.startswith(f"# {answers['project_name']}\n")


@pytest.mark.parametrize("changed", GOOD.values(), ids=GOOD)
def test_project_is_generated_from_valid_answers(bake: Bake, changed: dict[str, str]) -> None:
    project = bake(**changed)
    answers = {"project_slug": project.name, **changed}
    check(project, answers)


def test_every_question_has_a_row() -> None:
    assert {name for changed in GOOD.values() for name in changed} == set(pre.RULES)


@pytest.mark.parametrize("changed", GOOD.values(), ids=GOOD)
def test_compose_accepts_its_files(bake: Bake, changed: dict[str, str], docker: str) -> None:
    project = bake(**changed)
    files = sorted(path.name for path in project.glob("compose*.yml"))
    command = [docker, "compose", *(f"--file={name}" for name in files), "config", "--quiet"]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("My Service", "my-service"),
        ("  Zoë & Ádám's 2nd  ", "zoe-adam-s-2nd"),
        ("東京 API", "dong-jing-api"),
        ("x" * 49 + " yz", "x" * 49),
    ],
)
def test_default_slug_is_derived_from_the_name(bake: Bake, name: str, slug: str) -> None:
    project = bake(options={"accept_hooks": False}, project_name=name)
    assert project.name == slug
    assert pre.is_slug(slug)


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_project_has_exactly_the_listed_files(request: pytest.FixtureRequest, answer: str) -> None:
    expected = (DATA / f"trees/{answer}.txt").read_text(encoding="utf-8")
    assert tree(request.getfixturevalue(f"{answer}_project")) == expected.splitlines()


def test_core_files_are_identical_with_and_without_observability(
    yes_project: Path, no_project: Path
) -> None:
    common = set(tree(yes_project)) & set(tree(no_project))
    assert {"compose.yml", "Makefile", "backend/Dockerfile", "backend/app/main.py"} <= common
    different = {
        name
        for name in common
        if (yes_project / name).read_bytes() != (no_project / name).read_bytes()
    }
    assert different == {
        ".env",
        ".env.example",
        ".github/workflows/ci.yml",
        "CLAUDE.md",
        "README.md",
        "backend/pyproject.toml",
    }
    assert set(tree(no_project)) <= set(tree(yes_project))


def test_project_without_observability_does_not_mention_it(no_project: Path) -> None:
    words = re.compile(
        rb"observability|prometheus|loki|promtail|tempo|grafana|opentelemetry|otel", re.IGNORECASE
    )
    found = [
        f"{name}: {match[0].decode()}"
        for name in tree(no_project)
        if (match := words.search(name.encode() + b"\n" + (no_project / name).read_bytes()))
    ]
    assert found == []


def test_files_follow_the_editorconfig(yes_project: Path) -> None:
    config = (yes_project / ".editorconfig").read_text(encoding="utf-8")
    assert {"trim_trailing_whitespace = true", "insert_final_newline = true"} <= {
        *config.splitlines()
    }
    for name in tree(yes_project):
        if name.endswith(".png"):
            continue
        text = (yes_project / name).read_bytes()
        assert not re.search(rb"[ \t\r]$", text, re.MULTILINE), name
        assert text.endswith(b"\n") or not text, name


class Health(BaseHTTPRequestHandler):
    """Responds to health checks with the ``status`` of its server."""

    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == "/v2/health" else 404)  # type: ignore[attr-defined]
        self.end_headers()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (302, False)])
def test_health_check_of_the_container_ignores_proxies(
    no_project: Path, status: int, healthy: bool
) -> None:
    compose: Any = parse(no_project / "compose.yml")
    _, _, *arguments = compose["services"]["backend"]["healthcheck"]["test"]
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        server.status = status  # type: ignore[attr-defined]
        Thread(target=server.serve_forever, daemon=True).start()
        arguments[-1] = arguments[-1].replace("8000", str(server.server_port))
        environment = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
        environment["APP_API_PREFIX"] = "/v2"
        done = subprocess.run([sys.executable, *arguments], env=environment, check=False)
        server.shutdown()
    assert (done.returncode == 0) is healthy


@pytest.mark.parametrize(
    "name", [".env", "observability.tar.gz", "monday.tar.gz", "sbom-core.json"]
)
def test_local_files_are_ignored_by_git(no_project: Path, tmp_path: Path, name: str) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    shutil.copy(no_project / ".gitignore", tmp_path)
    command = ["git", "-C", str(tmp_path), "check-ignore", "--quiet", name]
    assert subprocess.run(command, check=False).returncode == 0


def texts(max_length: int, min_size: int = 1) -> st.SearchStrategy[str]:
    """Return texts that the hook accepts, with many characters that are special in some format."""
    special = st.sampled_from([*"#:-%&*!|=@,[]()?~+/. 01é’", "yes", "null", "\u00a0"])
    return (
        st.lists(st.one_of(special, st.characters()), min_size=min_size, max_size=20)
        .map("".join)
        .filter(lambda text: pre.is_text(text, max_length, may_be_empty=min_size == 0))
    )


ANSWERS = st.fixed_dictionaries(
    {
        "project_name": texts(pre.NAME_MAX),
        "project_slug": st.from_regex(pre.SLUG, fullmatch=True).filter(pre.is_slug),
        "description": texts(pre.DESCRIPTION_MAX, min_size=0),
        "author": texts(pre.NAME_MAX),
        "python_version": st.sampled_from(pre.PYTHON_VERSIONS),
        "backend_api_prefix": st.from_regex(pre.PREFIX, fullmatch=True).filter(pre.is_prefix),
        "include_observability": st.sampled_from(pre.YES_NO),
    }
)
PORTS = st.lists(
    st.integers(1, pre.PORT_MAX).map(str),
    min_size=1 + len(pre.STACK_PORTS),
    max_size=1 + len(pre.STACK_PORTS),
    unique=True,
)


# No shrinking: it would take minutes, and the examples are short.
@pytest.mark.slow
@settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=100,
    phases=[Phase.explicit, Phase.generate],
)
@given(answers=ANSWERS, ports=PORTS)
@example(answers={"project_name": "yes", "description": "- a: b #c", "author": "null"}, ports=[])
def test_project_is_generated_from_any_accepted_answers(
    bake: Bake, answers: dict[str, str], ports: list[str]
) -> None:
    given_ports = dict(zip(("backend_port", *pre.STACK_PORTS), ports, strict=bool(ports)))
    answers = {"project_slug": "a", **answers, **given_ports}
    assert pre.find_problems({**DEFAULTS, **answers}) == []
    check(bake(options={"accept_hooks": False}, **answers), answers)
