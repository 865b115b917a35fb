"""The functions of the hooks, and the hooks as cookiecutter runs them."""

import json
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Template

from hooks import post_gen_project as post
from hooks import pre_gen_project as pre
from tests.support.template import ROOT

GOOD = {name: example for name, (_, _, example) in pre.RULES.items()}
FEATURE = "include_observability"


def test_every_question_has_a_rule_that_accepts_its_example() -> None:
    questions = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    assert [name for name in questions if not name.startswith("_")] == list(pre.RULES)
    assert pre.find_problems(GOOD) == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("project_slug", ""),
        ("project_slug", "a" * 51),
        ("project_slug", "1a"),
        ("project_slug", "a--b"),
        ("project_slug", "a-"),
        ("project_slug", "A"),
        ("project_slug", "ä"),
        ("project_slug", "a\n"),
        ("project_name", ""),
        ("project_name", " a"),
        ("project_name", 'a"b'),
        ("project_name", "a\nb"),
        ("project_name", "a\u2028b"),
        ("author", "a\\"),
        ("description", "a\x00"),
        ("python_version", "3.10"),
        ("python_version", "3.13.1"),
        ("backend_port", "0"),
        ("backend_port", "65536"),
        ("backend_port", "080"),
        ("backend_port", "٨٠٨٠"),
        ("backend_port", "80\n"),
        ("backend_api_prefix", ""),
        ("backend_api_prefix", "/"),
        ("backend_api_prefix", "api"),
        ("backend_api_prefix", "/api/"),
        ("backend_api_prefix", "/api//v1"),
        ("backend_api_prefix", "/api/../v1"),
        ("backend_api_prefix", "/metrics"),
        ("backend_api_prefix", "/api/{id}"),
        (FEATURE, "maybe"),
        (FEATURE, "Yes"),
        (FEATURE, None),
    ],
)
def test_invalid_value_is_rejected(variable: str, value: object) -> None:
    [problem] = pre.find_problems({**GOOD, variable: value})
    assert problem.startswith(f"{variable}: {value!r} is invalid: must be ")
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("project_slug", "a"),
        ("project_slug", "a" * 50),
        ("project_slug", "a-b_c-1"),
        ("project_name", "Zoë’s 1st: #service, 100% & more!"),
        ("description", ""),
        ("description", "d" * 200),
        ("backend_port", "1"),
        ("backend_port", "65535"),
        ("backend_api_prefix", "/v1.0/~x_y-z"),
    ],
)
def test_valid_value_is_accepted(variable: str, value: str) -> None:
    assert pre.find_problems({**GOOD, variable: value}) == []


def test_repeated_port_is_rejected() -> None:
    [problem] = pre.find_problems({**GOOD, "loki_port": GOOD["backend_port"]})
    assert problem.startswith("loki_port: '8000' is already used by backend_port: must be ")


def test_ports_of_a_stack_that_is_not_included_are_not_checked() -> None:
    answers = {**GOOD, FEATURE: "no", "backend_port": GOOD["grafana_port"], "loki_port": "x"}
    assert pre.find_problems(answers) == []


def test_slug_is_checked_as_it_was_answered() -> None:
    answers = {**GOOD, "project_slug": pre.SLUG_STAND_IN, "__answered_slug": "../x"}
    [problem] = pre.find_problems(answers)
    assert problem.startswith("project_slug: '../x' is invalid")


@pytest.mark.parametrize(
    ("variable", "length"), [("project_name", 101), ("author", 10_000), ("description", 201)]
)
def test_long_value_is_rejected_and_truncated_in_the_message(variable: str, length: int) -> None:
    [problem] = pre.find_problems({**GOOD, variable: "x" * length})
    assert problem.startswith(f"{variable}: 'xxx")
    assert "xxx... (truncated) is invalid" in problem
    assert len(problem) < 500


def test_all_problems_are_printed_one_per_line(tmp_path: Path) -> None:
    answers = {**GOOD, "author": 'a"""\n\\', "project_slug": "\u2028", "backend_port": "x"}
    result = run_hook("pre_gen_project.py", tmp_path, answers)
    assert result.returncode == 1
    named = [line.split(":")[0] for line in result.stderr.splitlines() if " must be " in line]
    assert named == ["project_slug", "author", "backend_port"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Create a project with every path in `FEATURE_PATHS` and an .env.example."""
    for name in post.FEATURE_PATHS[FEATURE]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if Path(name).suffix:
            path.write_text("x", encoding="utf-8")
        else:
            (path / "deep").mkdir(parents=True)
            (path / "deep" / "file").write_text("x", encoding="utf-8")
    (tmp_path / ".env.example").write_text(
        "# PORT=1\nGRAFANA_ADMIN_PASSWORD=\nOTHER=\n", encoding="utf-8"
    )
    return tmp_path


def run_hook(
    name: str, folder: Path, answers: Mapping[str, object], umask: int = -1
) -> subprocess.CompletedProcess[str]:
    """Render a hook and run it in a folder, like cookiecutter."""
    source = (ROOT / "hooks" / name).read_text(encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-c", Template(source).render(cookiecutter=answers)],
        cwd=folder,
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )


def run_post(project: Path, umask: int = -1, **answers: str) -> subprocess.CompletedProcess[str]:
    """Run post_gen_project.py in a project."""
    features = dict.fromkeys(post.FEATURE_PATHS, "yes")
    context = {"project_slug": "my-service", **features, **answers}
    return run_hook("post_gen_project.py", project, context, umask)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_paths_of_a_feature_that_is_not_included_are_deleted(project: Path) -> None:
    assert run_post(project, include_observability="no").returncode == 0
    assert not [name for name in post.FEATURE_PATHS[FEATURE] if (project / name).exists()]


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_second_run_changes_nothing(project: Path, answer: str) -> None:
    assert run_post(project, include_observability=answer).returncode == 0
    after_first = files(project)
    assert run_post(project, include_observability=answer).returncode == 0
    assert files(project) == after_first


@pytest.mark.parametrize("name", post.FEATURE_PATHS[FEATURE])
def test_missing_feature_path_is_an_error(project: Path, name: str) -> None:
    (project / name).rename(project / "renamed")
    before = files(project)
    result = run_post(project, include_observability="no")
    assert result.returncode == 1
    assert name in result.stderr
    assert files(project) == before


def test_env_has_a_random_password(project: Path) -> None:
    texts = []
    for _ in range(2):
        assert run_post(project).returncode == 0
        texts.append((project / ".env").read_text(encoding="utf-8").splitlines())
        (project / ".env").unlink()
    for text in texts:
        assert [text[0], text[2]] == ["# PORT=1", "OTHER="]
        assert len(text[1].removeprefix("GRAFANA_ADMIN_PASSWORD=")) >= 32
    assert texts[0][1] != texts[1][1]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file modes")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_env_is_readable_only_by_its_owner(project: Path, umask: int) -> None:
    assert run_post(project, umask).returncode == 0
    assert stat.S_IMODE((project / ".env").stat().st_mode) == 0o600


def test_existing_env_is_not_overwritten(project: Path) -> None:
    (project / ".env").write_text("mine", encoding="utf-8")
    assert run_post(project).returncode == 0
    assert (project / ".env").read_text(encoding="utf-8") == "mine"


def test_env_is_not_written_for_cruft(project: Path) -> None:
    """Cruft compares generated projects, so a random password would be a difference."""
    assert run_post(project, _commit="abc").returncode == 0
    assert not (project / ".env").exists()


@pytest.mark.parametrize(("answer", "start"), [("yes", "make obs-up"), ("no", "make up")])
def test_next_commands_are_printed(project: Path, answer: str, start: str) -> None:
    lines = run_post(project, include_observability=answer).stdout.splitlines()
    assert [line.strip() for line in lines if line.startswith("  ")] == [
        "cd my-service",
        start,
        "make test",
    ]


def test_missing_env_example_is_an_error(project: Path) -> None:
    (project / ".env.example").unlink()
    result = run_post(project)
    assert result.returncode == 1
    assert ".env.example" in result.stderr


@settings(deadline=None, derandomize=True, database=None, max_examples=500)
@given(st.fixed_dictionaries(dict.fromkeys(pre.RULES, st.text())))
def test_any_answers_are_accepted_or_rejected(answers: dict[str, str]) -> None:
    problems = pre.find_problems(answers)
    assert {problem.partition(":")[0] for problem in problems} <= pre.RULES.keys()
    assert problems or all(valid(answers[name]) for name, (valid, _, _) in pre.RULES.items())
