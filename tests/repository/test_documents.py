"""Documents: options, file tree, links, pictures, tests, services and targets match the files."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

import pytest

from hooks import pre_gen_project as pre
from tests.support.prometheus_rules import ALERTS
from tests.support.template import DATA, ROOT, TEMPLATE, tree

STACK = TEMPLATE / "observability"


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_lists_the_options_with_their_defaults() -> None:
    rows = re.findall(r"(?m)^\| `(\w+)` \| (.*?) \|", readme())
    questions = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    public = {name: value for name, value in questions.items() if not name.startswith("_")}
    assert [name for name, _ in rows] == list(public)
    for name, shown in rows:
        default = public[name][0] if isinstance(public[name], list) else public[name]
        assert f"`{default}`" in shown or "{{" in default, name
    assert list(public) == list(pre.RULES)


def test_readme_shows_the_generated_tree() -> None:
    """Every path in the drawing exists, and no top-level entry is left out but dotfiles."""
    block = readme().split("```text\nmy-service/\n", 1)[1].split("```", 1)[0]
    folders: list[str] = []
    drawn = set()
    for line in block.splitlines():
        # ├── compose.yml    the service
        indent, name = re.fullmatch(r"([│ ]*)[├└]── (\S+).*", line, re.ASCII).groups()  # type: ignore[union-attr]
        depth = len(indent) // 4
        path = "/".join([*folders[:depth], name.rstrip("/")])
        folders[depth:] = [name.rstrip("/")]
        drawn.add(path)
    files = (DATA / "trees/yes.txt").read_text(encoding="utf-8").splitlines()
    existing = {parent.as_posix() for name in files for parent in [Path(name), *Path(name).parents]}
    assert drawn <= existing
    assert {name.split("/")[0] for name in files if name[0] != "."} <= drawn


def test_readme_has_the_number_of_alerts() -> None:
    assert set(re.findall(r"(\d+) alerts", readme())) == {str(len(ALERTS))}


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub forms them."""
    text = re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"))
    headings = re.findall(r"(?m)^#+ (.+)$", text)
    # What to replace? -> what-to-replace
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[tuple[Path, str]]:
    """Return the file and the anchor, if any, of each relative link on a page."""
    # [Limits](README.md#limits)
    targets = re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8"))
    parts = [unquote(target).partition("#") for target in targets]
    return [((page.parent / path).resolve() if path else page, anchor) for path, _, anchor in parts]


def broken_links(folder: Path, pages: Iterable[Path]) -> list[str]:
    """Return the links that lead out of the folder, to no file, or to no heading."""
    return [
        f"{page.name}: {file.name}#{anchor}"
        for page in pages
        for file, anchor in links(page)
        if not (file.exists() and file.is_relative_to(folder.resolve()))
        or (anchor and anchor not in anchors(file))
    ]


def test_links_between_documents_have_targets() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("tests/*.md")]
    assert len(pages) > 8
    assert broken_links(ROOT, pages) == []


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_links_in_a_generated_project_have_targets(
    request: pytest.FixtureRequest, answer: str
) -> None:
    project: Path = request.getfixturevalue(f"{answer}_project")
    pages = [project / name for name in tree(project) if name.endswith(".md")]
    assert len(pages) == {"yes": 11, "no": 3}[answer]
    assert broken_links(project, pages) == []


@pytest.mark.parametrize(
    "index", [ROOT / "docs/README.md", STACK / "README.md"], ids=["docs", "observability"]
)
def test_index_links_to_every_page(index: Path) -> None:
    pages = {*ROOT.glob("docs/*.md")} if index.is_relative_to(ROOT / "docs") else set()
    linked = {file for file, _ in links(index)}
    assert pages | {*STACK.rglob("*.md")} <= linked | {index}


def test_pictures_are_small_and_have_alt_texts() -> None:
    pictures = sorted((STACK / "pictures").glob("*.png"))
    assert len(pictures) == 3
    for document in (ROOT / "README.md", STACK / "docs/follow-one-request.md"):
        text = document.read_text(encoding="utf-8")
        # ![The Backend Service dashboard: ...](../pictures/backend-service.png)
        shown = re.findall(r"!\[[^\]]{40,}\]\((\S+\.png)\)\n", text)
        assert len(shown) == text.count(".png")
        found = sorted((document.parent / unquote(path)).resolve() for path in shown)
        assert set(found) <= set(pictures)
        assert found == pictures or document.parent == ROOT
    assert max(picture.stat().st_size for picture in pictures) < 200_000


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_readme_of_a_generated_project_lists_every_setting(
    request: pytest.FixtureRequest, answer: str
) -> None:
    project: Path = request.getfixturevalue(f"{answer}_project")
    code = (project / "backend/app/settings.py").read_text(encoding="utf-8")
    #     upstream_timeout: float = 2.0
    fields = re.findall(r"(?m)^    (\w+): .+ = ", code)
    # | `APP_UPSTREAM_TIMEOUT` | `2.0` | ...
    rows = re.findall(r"(?m)^\| `(APP_\w+)` \|", (project / "backend/README.md").read_text("utf-8"))
    assert len(fields) > 5
    assert sorted(rows) == sorted(f"APP_{name.upper()}" for name in fields)


def test_instrumentation_example_has_the_pinned_version() -> None:
    page = (STACK / "docs/extend.md").read_text(encoding="utf-8")
    packages = (TEMPLATE / "backend/pyproject.toml").read_text(encoding="utf-8")
    (shown,) = re.findall(r'"opentelemetry-instrumentation-sqlalchemy==(\S+)"', page)
    assert f'"opentelemetry-distro=={shown}"' in packages


def test_readme_of_the_tests_lists_each_folder() -> None:
    text = (ROOT / "tests/README.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| `([a-z0-9/]+)/` \|", text)
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")} - {ROOT / "tests"}
    names = {
        path.relative_to(ROOT / "tests").as_posix() for path in folders if any(path.glob("[a-z]*"))
    }
    assert set(rows) == {name for name in names if not name.startswith("data/")} - {"stack"} | {
        "data"
    }


@pytest.mark.parametrize("folder", [ROOT, STACK], ids=["repository", "observability"])
def test_readme_mentions_every_service_and_make_target_of_the_stack(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    overlay = (TEMPLATE / "compose.observability.yml").read_text(encoding="utf-8")
    services = re.findall(r"(?m)^  ([a-z-]+):\n    <<: \*stack", overlay)
    assert len(services) > 8
    assert [name for name in services if name not in text.lower()] == []
    makefile = (STACK / "obs.mk").read_text(encoding="utf-8")
    targets = re.findall(r"(?m)^(obs-[a-z-]+):.*##", makefile)
    assert len(targets) > 8
    assert [name for name in targets if name not in text] == []


def test_drawing_has_every_service_of_the_stack() -> None:
    drawing = (ROOT / "docs" / "overlay.svg").read_text(encoding="utf-8").lower()
    folders = [path.name for path in STACK.iterdir() if path.is_dir()]
    services = {*folders, "node-exporter"} - {"check", "docs", "pictures"}
    # Once in the drawing and once in its description.
    assert [name for name in sorted(services) if drawing.count(name) < 2] == []


def test_file_trees_are_sorted_and_differ_only_by_the_feature() -> None:
    yes, no = (
        (DATA / f"trees/{answer}.txt").read_text(encoding="utf-8").splitlines()
        for answer in ("yes", "no")
    )
    assert yes == sorted(yes)
    assert no == sorted(set(no) & set(yes))
    assert "README.md" in tree(ROOT)
