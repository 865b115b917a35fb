"""Invalid answers are rejected with a message, and no file is generated."""

import json
from pathlib import Path

import pytest
from cookiecutter.exceptions import CookiecutterException, FailedHookException

from tests.support.template import DEFAULTS, ROOT, Bake, tree

# Name -> answers, and the rejected variables with their values as the message shows them.
BAD: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "empty slug": ({"project_slug": ""}, {"project_slug": "''"}),
    "slug with a slash": ({"project_slug": "a/b"}, {"project_slug": "'a/b'"}),
    "slug above the folder": ({"project_slug": "../x"}, {"project_slug": "'../x'"}),
    "absolute slug": ({"project_slug": "/tmp/x"}, {"project_slug": "'/tmp/x'"}),  # noqa: S108
    "slug is a dot": ({"project_slug": "."}, {"project_slug": "'.'"}),
    "slug is two dots": ({"project_slug": ".."}, {"project_slug": "'..'"}),
    "slug with a backslash": ({"project_slug": "a\\b"}, {"project_slug": r"'a\\b'"}),
    "slug in capitals": ({"project_slug": "My-Service"}, {"project_slug": "'My-Service'"}),
    "slug with a leading hyphen": ({"project_slug": "-a"}, {"project_slug": "'-a'"}),
    "slug with a leading digit": ({"project_slug": "1a"}, {"project_slug": "'1a'"}),
    "slug is too long": ({"project_slug": "a" * 51}, {"project_slug": f"'{'a' * 51}'"}),
    "slug from a name without letters": ({"project_name": "!!!"}, {"project_slug": "''"}),
    "quote": ({"project_name": 'a"b', "project_slug": "a"}, {"project_name": "'a\"b'"}),
    "newline": ({"description": "a\nb"}, {"description": r"'a\nb'"}),
    "brace": ({"author": "a{b"}, {"author": "'a{b'"}),
    "backslash": ({"author": "a\\"}, {"author": r"'a\\'"}),
    "dollar": ({"description": "$HOME"}, {"description": "'$HOME'"}),
    "port 0": ({"backend_port": "0"}, {"backend_port": "'0'"}),
    "port 65536": ({"loki_port": "65536"}, {"loki_port": "'65536'"}),
    "port is not a number": ({"grafana_port": "http"}, {"grafana_port": "'http'"}),
    "ports repeat": ({"grafana_port": "9090"}, {"prometheus_port": "'9090'"}),
    "port of Alertmanager": ({"loki_port": "9093"}, {"loki_port": "'9093'"}),
    "backend on the port of Alertmanager": ({"backend_port": "9093"}, {"backend_port": "'9093'"}),
    "prefix without a slash": ({"backend_api_prefix": "api"}, {"backend_api_prefix": "'api'"}),
    "prefix ends in a slash": ({"backend_api_prefix": "/api/"}, {"backend_api_prefix": "'/api/'"}),
    "prefix of the metrics": (
        {"backend_api_prefix": "/metrics"},
        {"backend_api_prefix": "'/metrics'"},
    ),
    "python 2": ({"python_version": "2.7"}, {"python_version": "'2.7'"}),
    "several": (
        {"project_slug": "../x", "author": "", "backend_port": "x", "tempo_http_port": "4317"},
        {
            "project_slug": "'../x'",
            "author": "''",
            "backend_port": "'x'",
            "tempo_otlp_grpc_port": "'4317'",
        },
    ),
}


@pytest.mark.parametrize(("answers", "expected"), BAD.values(), ids=BAD)
def test_invalid_answers_are_rejected_and_nothing_is_generated(
    bake: Bake,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    answers: dict[str, str],
    expected: dict[str, str],
) -> None:
    output_dir = tmp_path / "outer" / "inner"
    output_dir.mkdir(parents=True)
    with pytest.raises(FailedHookException):
        bake(output_dir, **answers)
    lines = [line for line in capfd.readouterr().err.splitlines() if line]
    assert lines[0] == "These answers are invalid, so nothing was generated:"
    shown = dict(line.split(": ", 1) for line in lines[1:])
    assert len(shown) == len(lines) - 1
    assert list(shown) == list(expected)
    for variable, value in expected.items():
        assert shown[variable].startswith(f"{value} is ")
        assert ": must be " in shown[variable]
    assert [path.name for path in tmp_path.rglob("*")] == ["outer", "inner"]


def test_include_observability_other_than_yes_or_no_is_rejected(bake: Bake, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^maybe .* include_observability, .*'yes', 'no'"):
        bake(tmp_path, include_observability="maybe")
    assert list(tmp_path.iterdir()) == []


def test_include_observability_other_than_yes_or_no_is_rejected_in_a_replay(
    bake: Bake, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Cookiecutter does not validate replayed answers, so the hook must."""
    replay = tmp_path / "replay.json"
    variables = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    answers = {**variables, **DEFAULTS, "include_observability": "maybe"}
    replay.write_text(json.dumps({"cookiecutter": answers}), encoding="utf-8")
    options = {"no_input": False, "extra_context": None, "replay": str(replay)}
    with pytest.raises(FailedHookException):
        bake(tmp_path, options=options)
    assert "\ninclude_observability: 'maybe' is invalid: must be yes or no" in (
        capfd.readouterr().err
    )
    assert list(tmp_path.iterdir()) == [replay]


def test_existing_folder_is_unchanged_if_an_answer_is_rejected(bake: Bake, tmp_path: Path) -> None:
    existing = tmp_path / "orders" / "existing"
    existing.parent.mkdir()
    existing.write_text("mine", encoding="utf-8")
    answers = {"project_slug": "orders", "backend_port": "0"}
    for options in ({}, {"overwrite_if_exists": True}):
        with pytest.raises(CookiecutterException):
            bake(tmp_path, options=options, **answers)
        assert tree(tmp_path) == ["orders/existing"]
