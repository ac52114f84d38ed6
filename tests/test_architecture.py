"""The house's laws about who knows whom, read from the source."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "gan_lightning"
LEAVES = ["distributed", "latents", "ema", "schedule", "losses", "augment"]
TOP = {"callbacks", "cli", "report", "run"}


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports anywhere, as dotted names below it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.startswith("gan_lightning")
        ):
            base = node.module.removeprefix("gan_lightning").lstrip(".")
            found |= {base} if base else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("gan_lightning.")
                for alias in node.names
                if alias.name.startswith("gan_lightning.")
            }
    return found


def test_leaves_import_no_part_of_the_package():
    """But for the types of their arguments."""
    for leaf in LEAVES:
        assert imports(SOURCE / f"{leaf}.py") <= {"distributed", "ranges"}, leaf


def test_nothing_but_the_entry_points_imports_the_top():
    for path in SOURCE.rglob("*.py"):
        name = str(path.relative_to(SOURCE).with_suffix("")).replace("/", ".")
        if name not in TOP | {"__main__"}:
            assert not imports(path) & TOP, name


def test_networks_and_data_do_not_know_the_module():
    for folder in ("networks", "data"):
        for path in (SOURCE / folder).rglob("*.py"):
            assert not {
                name
                for name in imports(path)
                if name in {"gan"} or name.startswith(("diagnosis", "measure"))
            } - {"measure.features"}, path  # the data check looks with the scores' features


def test_only_data_images_scales_pixels():
    """Law 2: no other file divides or multiplies by 127.5 or 255."""
    for path in SOURCE.rglob("*.py"):
        if path.name != "images.py" and path.name != "eggs.py":
            numbers = {
                node.value
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Constant)
            }
            assert 127.5 not in numbers, path
