"""Keeps the repository's layout on the site, so that relative links between its files need no rewriting."""

import subprocess
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

PAGES = (".md", ".ipynb")
SHOWN = (".png", ".svg", ".css")


@event_priority(100)  # before the plugin that recognises notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take every file of the repository that git does not ignore, in place of those of ``docs`` alone."""
    root = Path(config.config_file_path).parent
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.check_output(command, cwd=root, text=True).splitlines()
    paths = [path for path in listed if (root / path).is_file()]  # one that is gone may not be removed yet
    named = str(config.nav)
    more = [path for path in paths if path.endswith(PAGES) and f"'{path}'" not in named]
    if more:
        config.nav.append({"More": more})
    theme = [file for file in files if file.src_dir != config.docs_dir]
    return Files(theme + [_file(config, path, root) for path in paths])


def _file(config: MkDocsConfig, path: str, root: Path) -> File:
    file = File(path, str(root), config.site_dir, config.use_directory_urls)
    if not path.endswith(PAGES + SHOWN):
        file.dest_uri += ".txt"  # a browser shows a text, and would store a yaml
    return file
