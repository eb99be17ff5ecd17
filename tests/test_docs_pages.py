"""What pages say of the source holds: quoted messages, figures from CSVs, exits, extras."""

from __future__ import annotations

import ast
import csv
import re
import tomllib
from collections import defaultdict
from pathlib import Path
from statistics import mean

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOLE = "…"
"""What stands for a name or number, in a page and in a message of the source."""


def template(node: ast.AST) -> str:
    """The text of a string expression, with a hole for what is put in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    return HOLE


def messages() -> list[str]:
    """Every string of the package, with one hole for each place where something is put in."""
    trees = [ast.parse(path.read_text("utf-8")) for path in sorted((ROOT / "mpfnl").rglob("*.py"))]
    kinds = ast.Constant | ast.JoinedStr | ast.BinOp
    texts = [template(node) for tree in trees for node in ast.walk(tree) if isinstance(node, kinds)]
    return [re.sub(f"{HOLE}+", HOLE, text) for text in texts]


def fixed_words(message: str) -> list[str]:
    return [part for part in re.split(f"{HOLE}+", message) if part.strip()]


def is_known(message: str, templates: list[str]) -> bool:
    """Whether a template gives this message: its fixed words in this order, nothing beside them."""
    pieces = [re.escape(part) for part in re.split(f"{HOLE}+", message)]
    whole = re.compile(f"{HOLE}?".join(pieces))
    return any(whole.fullmatch(template) for template in templates)


def quoted() -> list[str]:
    """The first cell of each row of the tables of messages."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    return re.findall(r"^\| `([^`]+)` \|", text, flags=re.M)


@pytest.fixture(scope="module")
def known() -> list[str]:
    return messages()


def test_messages_are_found_at_all(known: list[str]) -> None:
    assert len(quoted()) >= 50
    assert is_known("--jobs … --threads …: give at least 1 of each", known)
    assert not is_known("--jobs … --threads …: give at least 3 of each", known)


@pytest.mark.parametrize("message", quoted())
def test_quoted_messages_are_those_of_the_source(message: str, known: list[str]) -> None:
    assert sum(map(len, fixed_words(message))) >= 15, "quote enough of it to be found"
    assert is_known(message, known)


def table(page: str, heading: str) -> list[list[str]]:
    """The rows of the first table under a heading."""
    text = (ROOT / "docs" / page).read_text("utf-8").split(f"## {heading}\n", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", text, flags=re.M)
    assert lines is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[0].splitlines()[2:]]


def test_figures_of_the_phantom_weights_are_those_of_the_csv() -> None:
    groups: dict[tuple[str, ...], list[float]] = defaultdict(list)
    with (ROOT / "benchmarks" / "results" / "phantom_segmentation.csv").open(
        encoding="utf-8", newline=""
    ) as file:
        for row in csv.DictReader(file):
            groups[row["mode"], row["scan"], row["voxels"]].append(float(row["pancreas_dsc"]))
    expected = [
        [*group, f"{mean(dsc):.3f}", f"{min(dsc):.3f}, {max(dsc):.3f}"] for group, dsc in groups.items()
    ]
    assert table("benchmarks.md", "The phantom weights") == expected


def test_figures_of_the_shipped_weights_are_those_of_the_csv() -> None:
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    path = ROOT / "benchmarks" / "results" / "shipped_weights.csv"
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for name in ("psnr_db", "ssim", "dsc"):
                if row[name]:
                    found[row["method"], name].append(float(row[name]))
    expected = [
        [f"{mean(found[method, 'psnr_db']):.2f}", f"{mean(found[method, 'ssim']):.3f}", dsc]
        if found[method, "psnr_db"]
        else ["", "", dsc]
        for method in dict.fromkeys(method for method, _ in found)
        for dsc in [f"{100 * mean(found[method, 'dsc']):.1f}"]
    ]
    lines = table("shipped.md", "On phantoms that they have not seen")
    assert len(expected) == 7
    assert [line[1:4] for line in lines[: len(expected)]] == expected


PRESETS = ("none", "mild", "paper", "severe")


def test_figures_of_the_patients_are_those_of_the_csv() -> None:
    path = ROOT / "benchmarks" / "results" / "patients.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["weights"] != "phantoms"]
    psnr = {(row["study"], row["degradation"], row["method"]): float(row["psnr_db"]) for row in rows}
    methods = ("degraded", "RCAN3D", "PFNL3D", "PFNL3D portal venous")
    expected = [
        [f"`{preset}`", *(f"{psnr[f'{study}-{voxels}', preset, method]:.2f}" for method in methods)]
        for voxels in ("own", "3mm")
        for preset in ("mild", "paper", "severe")
        for study in ("hcc005_a", "hcc005_b")
    ]
    assert [line[1:] for line in table("shipped.md", "Patients")] == expected
    page = (ROOT / "docs" / "shipped.md").read_text("utf-8")
    for preset in ("paper", "severe"):
        gains = [
            psnr[study, preset, "PFNL3D"] - psnr[study, preset, "PFNL3D portal venous"]
            for study in dict.fromkeys(row["study"] for row in rows)
        ]
        assert f"{mean(gains):+.2f} dB" in page
        assert f"({min(gains):+.2f} to {max(gains):+.2f})" in page
    with path.with_name("patients_noise.csv").open(encoding="utf-8", newline="") as file:
        noise = list(csv.DictReader(file))
    words = " ".join(page.split())
    for preset, text in (("none", "0 to {:.2f} undegraded"), ("mild", "0 to {:.2f} at `mild`")):
        strengths = [float(row["strength"]) for row in noise if row["degradation"] == preset]
        assert min(strengths) == 0
        assert text.format(max(strengths)) in words
    least = {
        preset: min(float(r["strength"]) for r in noise if r["degradation"] == preset) for preset in PRESETS
    }
    assert f"{least['paper']:.2f} to 1.00 at `paper` and {least['severe']:.2f} at `severe`" in words


def test_benchmarks_page_names_every_script_and_csv() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    results = {path.name for path in (ROOT / "benchmarks" / "results").glob("*.csv")}
    assert {name for name in results if f"`{name}`" not in text} == set()
    named = set(re.findall(r"`(\w+\.csv)`", text))
    assert named <= results
    scripts = set(re.findall(r"^\| [^|]+ \| `(\w+\.py)", text, flags=re.M))
    assert len(scripts) >= 10
    assert all((ROOT / "benchmarks" / name).is_file() for name in scripts)


def test_every_extra_is_explained() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    assert [row[0].strip("`") for row in table("install.md", "Extras")] == [
        name for name in ("register", "segment", "cluster", "hub", "all", "docs", "dev") if name in extras
    ]
    assert len(extras) == 7
