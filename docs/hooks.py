"""What the site does with the pages that the repository shows as they are.

The README is its first page, and links that lead out of docs/ are names of files, since the site has only the documents.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(((?!https?:|#)[^)\s]+)\)")
_PICTURE = re.compile(r"!\[([^\]]*)\]\(((?:\.\./)?reports/[^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the README as the first page, whose links into docs/ lead to pages beside it, and the pictures of reference reports
    that pages show."""
    texts = {"index.md": re.sub(r"\]\(docs/", "](", (ROOT / "README.md").read_text(encoding="utf-8"))}
    texts |= {
        path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))
    }
    for picture in dict.fromkeys(found[2] for text in texts.values() for found in _PICTURE.finditer(text)):
        files.append(File.generated(config, _at(picture), abs_src_path=str(ROOT / picture.removeprefix("../"))))
    files.append(File.generated(config, "index.md", content=_without_outer_links(texts["index.md"], DOCS)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Makes links that lead out of docs/ plain text, and those to the README links to the first page."""
    uri = page.file.src_uri
    return markdown if uri == "index.md" else _without_outer_links(markdown, (DOCS / uri).parent)


def _at(picture: str) -> str:
    """Returns where a picture of a reference report lies on the site."""
    return "pictures/" + "-".join(Path(picture.removeprefix("../")).parts[2:])


def _without_outer_links(text: str, folder: Path) -> str:
    """Returns a page whose links to other than pages and pictures of the site are their words, with the file's name.

    Args:
        text: of the page.
        folder: in which it lies.
    """

    def replaced(found: re.Match[str]) -> str:
        words, target = found.groups()
        path, _, heading = target.partition("#")
        there = Path(os.path.normpath(folder / path))
        if there == ROOT / "README.md":
            return f"[{words}]({os.path.relpath(DOCS / 'index.md', folder)}{'#' if heading else ''}{heading})"
        if there.is_relative_to(DOCS) and there.suffix in (".md", ".svg") and there.is_file():
            return found[0]
        return f"{words} (`{path.replace('../', '')}`)"

    text = _PICTURE.sub(lambda found: f"![{found[1]}]({_at(found[2])})", text)
    return _LINK.sub(replaced, text)
