"""What the pages say is there, and what is generated from the code is what the code says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGES = sorted([*Path("docs").glob("*.md"), *Path().glob("*.md")])


def test_the_page_of_metrics_is_what_the_code_serves() -> None:
    argv = [sys.executable, "docs/generate.py"]
    made = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    hint = "write it anew: .venv/bin/python docs/generate.py > docs/metrics.md"
    assert Path("docs/metrics.md").read_text() == made, hint


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_what_a_page_links_to_and_the_paths_it_names_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for path in re.findall(
        r"(?:^|[\s`(=])((?:deploy|script|docs|libs|bench)/[\w./-]*\w)", text, re.MULTILINE
    ):
        assert Path(path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_headings_that_are_linked_to_exist(page: Path) -> None:
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)#([\w-]+)\)", page.read_text()):
        other = page.parent / target if target else page
        headings = re.findall(r"^#+ (.*)$", other.read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
        assert heading in anchors, (target, heading)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_alerts_and_settings_that_a_page_names_exist(page: Path) -> None:
    code = "".join(each.read_text() for each in Path("deploy/prometheus/rules").glob("*.yaml"))
    settings = "".join(each.read_text() for each in Path().glob("services/*/*/settings.py"))
    settings += Path("libs/runtime/flowverdict_runtime/service_settings.py").read_text()
    for alert in set(re.findall(r"`(Flowverdict[A-Z]\w+)`", page.read_text())):
        assert f"alert: {alert}" in code, alert
    for setting in set(re.findall(r"\bFLOWVERDICT_([A-Z_]+[A-Z])", page.read_text())):
        known = f"{setting.lower().removesuffix('_file')}: " in settings
        assert known or setting in ("IMAGES", "LISTEN", "NODE"), setting


def packages() -> list[Path]:
    """The `__init__.py` of each package that lists its modules."""
    found = [*Path().glob("libs/*/*/__init__.py"), *Path().glob("services/*/*/__init__.py")]
    found += [*Path().glob("services/*/*/*/__init__.py"), *Path("lab").glob("*/__init__.py")]
    return sorted(each for each in found if re.search(r"^`\w+` ", each.read_text(), re.MULTILINE))


@pytest.mark.parametrize("package", packages(), ids=lambda each: each.parent.name)
def test_a_package_lists_the_modules_that_it_has(package: Path) -> None:
    listed = set(re.findall(r"(?:^|[;.] )`(\w+)`", package.read_text(), re.MULTILINE))
    folders = {each.parent.name for each in package.parent.glob("*/__init__.py")}
    modules = {each.stem for each in package.parent.glob("*.py")} | folders
    assert listed <= modules, "listed, and not there"
    everywhere = {"__init__", "__main__", "settings"}
    assert modules - everywhere <= listed, "there, and not listed"


def test_files_that_code_and_configuration_mention_exist() -> None:
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True)
    files = [Path(each) for each in tracked.stdout.split()]
    names = {each.name for each in files}
    # Of the kernel, of other projects, or what a program writes.
    others = {
        "Columnar.html",
        "verdict.json",
        "inventory.json",
        "prometheus.yml",
        "credentials.json",
    }
    stale = []
    for file in files:
        if file.suffix not in (".py", ".c", ".yaml", ".yml", ".sh", ".conf", ".toml"):
            continue
        if "tests" in file.parts or file.name == "conftest.py" or not file.exists():
            continue
        mentioned = re.findall(r"\b([\w-]+\.(?:py|bpf\.c|yaml|html|sh))\b", file.read_text())
        stale += [(str(file), name) for name in mentioned if name not in names | others]
    assert not stale
