"""Documents: options, file tree, links, pictures, tests, services and targets match the files."""

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from hooks import pre_gen_project as pre
from tests.support.template import DATA, ROOT, TEMPLATE, tree


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
    """Every path in the drawing exists, and no top-level entry is left out."""
    block = readme().split("```text\nmy-service/\n", 1)[1].split("```", 1)[0]
    folders: list[str] = []
    drawn = set()
    for line in block.splitlines():
        indent, name = re.fullmatch(r"([│ ]*)[├└]── (\S+).*", line, re.ASCII).groups()  # type: ignore[union-attr]
        depth = len(indent) // 4
        path = "/".join([*folders[:depth], name.rstrip("/")])
        folders[depth:] = [name.rstrip("/")]
        drawn.add(path)
    files = (DATA / "trees/yes.txt").read_text(encoding="utf-8").splitlines()
    existing = {parent.as_posix() for name in files for parent in [Path(name), *Path(name).parents]}
    assert drawn <= existing
    assert {name.split("/")[0] for name in files} <= drawn


def test_links_between_documents_lead_somewhere() -> None:
    for document in ROOT.glob("*.md"):
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert (ROOT / unquote(target)).exists(), f"{document.name}: {target}"


def test_pictures_are_small_described_and_in_both_documents() -> None:
    pictures = list((TEMPLATE / "observability" / "pictures").glob("*.png"))
    assert len(pictures) == 3
    for document in (ROOT / "README.md", TEMPLATE / "observability" / "README.md"):
        shown = re.findall(
            r"!\[([^\]]{40,})\]\((\S+\.png)\)\n", document.read_text(encoding="utf-8")
        )
        found = [(document.parent / unquote(path)).resolve() for _, path in shown]
        assert sorted(found) == sorted(pictures), document
    assert max(picture.stat().st_size for picture in pictures) < 200_000


def test_the_tests_readme_has_a_row_for_each_folder() -> None:
    text = (ROOT / "tests/README.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| `([a-z0-9/]+)/` \|", text)
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")} - {ROOT / "tests"}
    names = {
        path.relative_to(ROOT / "tests").as_posix() for path in folders if any(path.glob("[a-z]*"))
    }
    assert set(rows) == {name for name in names if not name.startswith("data/")} - {"stack"} | {
        "data"
    }


@pytest.mark.parametrize("folder", [ROOT, TEMPLATE / "observability"], ids=["ours", "generated"])
def test_the_stack_is_described_as_a_whole(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    overlay = (TEMPLATE / "compose.observability.yml").read_text(encoding="utf-8")
    services = re.findall(r"(?m)^  ([a-z-]+):\n    <<: \*stack", overlay)
    assert len(services) > 8
    assert [name for name in services if name not in text.lower()] == []
    makefile = (TEMPLATE / "observability" / "obs.mk").read_text(encoding="utf-8")
    targets = re.findall(r"(?m)^(obs-[a-z-]+):.*##", makefile)
    assert len(targets) > 8
    assert [name for name in targets if name not in text] == []


def test_the_drawing_has_every_service_of_the_stack() -> None:
    drawing = (ROOT / "docs" / "overlay.svg").read_text(encoding="utf-8").lower()
    folders = [path.name for path in (TEMPLATE / "observability").iterdir() if path.is_dir()]
    services = {*folders, "node-exporter"} - {"check", "pictures"}
    assert [name for name in sorted(services) if drawing.count(name) < 2] == []  # shown, and told


def test_the_trees_are_sorted_and_differ_by_the_feature_only() -> None:
    yes, no = (
        (DATA / f"trees/{answer}.txt").read_text(encoding="utf-8").splitlines()
        for answer in ("yes", "no")
    )
    assert yes == sorted(yes)
    assert no == sorted(set(no) & set(yes))
    assert "README.md" in tree(ROOT)
