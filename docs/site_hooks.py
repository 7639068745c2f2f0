"""Hooks of the documentation's site (mkdocs.yml): its home is the README, its reference the docstrings of each room."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def modules(config: MkDocsConfig) -> list[str]:
    """The names of vcgen's modules and packages, in alphabetical order."""
    package = Path(config.config_file_path).parent / "vcgen"
    found = [path for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    return sorted(path.stem for path in found if not path.name.startswith("__"))


def on_config(config: MkDocsConfig) -> None:
    """The reference in the navigation."""
    config.nav.append({"Reference": [f"reference/{name}.md" for name in modules(config)]})


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages that are no files in docs/: the README, and one for each module or package of vcgen."""
    readme = (Path(config.config_file_path).parent / "README.md").read_text()
    files.append(File.generated(config, "index.md", content=readme))
    for name in modules(config):
        content = f"# vcgen.{name}\n\n::: vcgen.{name}\n"
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links within docs/ become links within the site; other files of the repository are named."""
    here = page.file.src_uri
    folder = "" if here == "index.md" else posixpath.dirname("docs/" + here)

    def rewritten(match: re.Match[str]) -> str:
        image, text, target = match.groups()
        if "://" in target or target.startswith("#"):
            return match[0]
        path, _, anchor = target.partition("#")
        place = posixpath.normpath(posixpath.join(folder, path))
        if not place.startswith("docs/"):
            return f"`{place}`" if text.strip("`") == place else f"{text} (`{place}`)"
        link = posixpath.relpath(place.removeprefix("docs/"), posixpath.dirname(here) or ".")
        return f"{image}[{text}]({link}{'#' + anchor if anchor else ''})"

    return LINK.sub(rewritten, markdown)
