"""The documents: links lead somewhere, commands name files and keys that exist, what they show runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.modeling import build_model
from material import build_loss, draw_labels, loss_inputs, seg_output, seg_spec

from fakd.config import load_config

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("projects/*/*.md"),
]


def page_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_to_files(page):
    """To files and not to folders, which the site cannot show."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    dead = [x for x in links if x and "://" not in x and not (page.parent / x).is_file()]
    assert not dead


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_named_files_exist(page):
    named = re.findall(
        r"(?<![\w/.-])((?:configs|projects|tools|fakd|tests)/[\w/.-]+\.(?:py|yaml))", page.read_text()
    )
    assert not [x for x in named if not (ROOT / x).exists()]


@pytest.mark.parametrize(
    "page", [p for p in PAGES if "results" not in p.parts or p.name == "README.md"], ids=page_id
)
def test_lines_of_prose_are_at_most_120_columns(page):
    """Tables, code and what is written by tools below ``docs/results`` may be wider."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    assert not [
        x for x in text.splitlines() if len(x) > 120 and not x.startswith(("|", "    ", "<!--", "!["))
    ]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_named_config_keys_exist(page, known_keys):
    nodes = "CHECKPOINT|DATALOADER|DATASETS|DEPLOY|INPUT|KD|MODEL|SOLVER|TEST"
    named = re.findall(rf"(?<![\w./])(?:{nodes})(?:\.\w+)+(?![\w<.*{{])", page.read_text())
    assert not set(named) - known_keys


@pytest.fixture(scope="module")
def known_keys():
    """Keys and nodes of the config, with those of the examples' losses."""

    def walk(node, prefix):
        for name, value in node.items():
            yield prefix + name
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{name}.")

    plugin = f"{ROOT}/projects/ExampleMethod/example_method.py"
    return {"KD.MyLoss", *walk(load_config(opts=["PLUGINS", plugin]), "")}


def test_the_first_screen_has_a_picture_a_table_with_seeds_and_the_licence():
    first = (ROOT / "README.md").read_text().split("## Data")[0]
    before = first.split("## Quick start")[0]
    (picture,) = re.findall(r"!\[.+\]\((.+)\)", before)
    assert (ROOT / picture).is_file()
    assert re.search(r"^\|.*, \d seeds.*\|$", before, re.M)
    assert re.search(r"^Apache-2.0, for the code and without conditions on the weights", before, re.M)
    assert "make quickstart" in first and "make test" in first


def test_the_api_lists_every_part_of_the_package():
    listed = set(
        re.findall(r"^::: fakd\.(\w+)$", "\n".join(p.read_text() for p in ROOT.glob("docs/api/*.md")), re.M)
    )
    parts = {p.stem for p in (ROOT / "fakd").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert listed == {name for name in parts if not name.startswith("_")}


def test_public_names_have_docstrings():
    rules = "D100,D101,D103,D104"
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--quiet",
        "--output-format",
        "concise",
        "--select",
        rules,
        "fakd",
    ]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_network_of_the_page_distils(tmp_path, monkeypatch):
    """Head, backbone and config of docs/add_a_network.md, as printed there."""
    page = (ROOT / "docs" / "add_a_network.md").read_text()
    blocks = re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL)
    code, configs = [[text for kind, text in blocks if kind == wanted] for wanted in ("python", "yaml")]
    (tmp_path / "my_network.py").write_text("\n\n".join(code))
    monkeypatch.chdir(tmp_path)
    for i, text in enumerate(configs):
        Path("student.yaml").write_text(text)
        cfg = load_config("student.yaml", ["MODEL.DEVICE", "cpu"])
        student = build_model(cfg).eval()
        output = student.encode(torch.zeros(1, 3, 64, 64))
        assert output.feature.shape[:2] == (1, 64) and output.logits.shape[1] == 12, f"config {i + 1}"
    assert list(output.stages) == ["res2", "res3", "res4", "res5"]
    assert (
        type(student.backbone).__name__ == "PlainBackbone"
        and type(student.decode_head).__name__ == "SkipHead"
    )
    teacher = seg_output(seg_spec(num_classes=12, channels=16), n=2, size=(8, 8))
    output = student.train().encode(255 * torch.rand(2, 3, 64, 64))
    labels = draw_labels(size=output.logits.shape[-2:], num_classes=12)
    loss = build_loss("CWD", student.spec, seg_spec(num_classes=12, channels=16))
    loss(loss_inputs(output, teacher, labels)).backward()
    assert all(p.grad is not None for p in student.backbone.parameters())


def test_a_section_of_the_site_opens_what_it_says():
    """The theme opens a section by its first README."""

    def opened(nav):
        for entry in nav:
            ((name, content),) = entry.items()
            if isinstance(content, list):
                pages = [page for child in content for page in child.values() if isinstance(page, str)]
                yield from [(name, page) for page in pages if page.endswith("README.md")][:1]
                yield from opened(content)

    text = (ROOT / "mkdocs.yml").read_text()
    assert dict(opened(yaml.safe_load(text)["nav"])) == {
        "Results": "docs/results/README.md",
        "Python": "docs/api/README.md",
        "A method outside the library": "projects/ExampleMethod/README.md",
    }


def test_the_site_needs_no_network_and_breaks_no_file_name():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert {"search", "offline"} <= {x for x in site["plugins"] if isinstance(x, str)}
    assert site["theme"]["font"] is False and not site["use_directory_urls"]
    (style,) = [(ROOT / path).read_text() for path in site["extra_css"]]
    assert "word-break: normal" in style and "://" not in style
