"""Hooks of the documentation's site (mkdocs.yml): its home is the README, its reference the docstrings of each room."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages that are no files in docs/: the README, and one for each module or package of vcgen."""
    root = Path(config.config_file_path).parent
    files.append(File.generated(config, "index.md", content=(root / "README.md").read_text()))
    names = sorted(
        {path.stem for path in (root / "vcgen").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    )
    for name in names:
        if not name.startswith("__"):
            files.append(
                File.generated(config, f"reference/{name}.md", content=f"# vcgen.{name}\n\n::: vcgen.{name}\n")
            )
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
