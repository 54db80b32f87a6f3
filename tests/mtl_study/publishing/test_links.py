"""Links to the web are there where an address is configured, in one place, and nowhere else."""

import ast
import re
import shutil

import pytest

from mtl_study.artifacts import REPOSITORY
from mtl_study.publishing import links, notebooks

ADDRESS = "https://github.com/Somebody/some.study"


@pytest.fixture
def repository(tmp_path):
    """A copy of what links are written into."""
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    shutil.copytree(REPOSITORY / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns("*.json"))
    return tmp_path


def configure(repository, address):
    path = repository / "pyproject.toml"
    text = re.sub(r"\[project\.urls\]\nRepository = .*\n\n", "", path.read_text())
    entry = f'[project.urls]\nRepository = "{address}"\n\n' if address else ""
    path.write_text(text.replace("[project.scripts]", f"{entry}[project.scripts]"))


def contents(repository):
    return {path: path.read_bytes() for path in (repository / "README.md", *notebooks.find(repository / "notebooks"))}


def test_what_is_committed_has_the_links_of_the_configured_address(repository):
    assert links.write(repository) == [], "run python -m mtl_study.publishing.links"


def test_links_come_with_an_address_and_go_with_it(repository):
    configure(repository, "")
    links.write(repository)
    bare = contents(repository)
    assert not any(b"mybinder" in text or b"badge" in text for text in bare.values())
    configure(repository, ADDRESS)
    assert set(links.write(repository)) == set(bare)
    assert links.write(repository) == []
    readme = (repository / "README.md").read_text()
    assert "(https://somebody.github.io/some.study/)" in readme and "codespaces.new/Somebody/some.study" in readme
    for stem in links.LIGHT:
        assert f"colab.research.google.com/github/Somebody/some.study/blob/main/notebooks/{stem}.ipynb" in readme
        assert f"mybinder.org/v2/gh/Somebody/some.study/HEAD?labpath=notebooks%2F{stem}.ipynb" in readme
    configure(repository, "")
    links.write(repository)
    assert contents(repository) == bare


def test_every_notebook_leads_to_its_executed_page_and_two_can_be_run_elsewhere(repository):
    """Their first cell of code changes nothing outside Colab, and stays clear of the parameters."""
    configure(repository, ADDRESS)
    links.write(repository)
    for path in notebooks.find(repository / "notebooks"):
        title, linked, *cells = notebooks.read(path).cells
        assert title.source.startswith("# ")
        assert f"https://somebody.github.io/some.study/notebooks/{path.stem}.html" in linked.source
        assert ("colab" in linked.source) == (path.stem in links.LIGHT) == any(cell.id == links.SETUP for cell in cells)
        first = next(cell for cell in cells if cell.cell_type == "code")
        if path.stem in links.LIGHT:
            assert first.id == links.SETUP and ADDRESS in first.source
            *imports, guard = ast.parse(first.source).body
            assert all(isinstance(line, ast.Import) for line in imports) and "google.colab" in ast.unparse(guard.test)
            exec(first.source, {})


def test_an_address_as_git_has_it_and_a_users_own_page(repository):
    configure(repository, f"{ADDRESS}.git")
    assert links.address(repository) == ADDRESS
    assert links.edition(ADDRESS) == "https://somebody.github.io/some.study"
    assert links.edition("https://github.com/Somebody/somebody.github.io") == "https://somebody.github.io"


def test_badges_show_images_in_the_readme_only(repository):
    """A page in the browser asks no other host for anything."""
    configure(repository, ADDRESS)
    links.write(repository)
    assert not any(
        b"![" in line and b"https" in line
        for text in list(contents(repository).values())[1:]
        for line in text.splitlines()
    )
    assert "badge" in (repository / "README.md").read_text()


def test_an_address_or_a_place_that_cannot_be_used_is_named(repository):
    configure(repository, "https://gitlab.com/somebody/study")
    with pytest.raises(
        ValueError, match=r"Repository is 'https://gitlab\.com/somebody/study'; expected https://github"
    ):
        links.write(repository)
    configure(repository, ADDRESS)
    (repository / "README.md").write_text("# Study\n")
    before = contents(repository)
    with pytest.raises(ValueError, match="no place for links: a line <!-- links --> and below it"):
        links.write(repository)
    assert contents(repository) == before
