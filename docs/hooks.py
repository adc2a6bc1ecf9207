"""What the site does with the pages that the repository shows as they are.

The README is its first page, and links that lead out of docs/ are names of files, since the site has only the documents.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(((?!https?:|#)[^)\s]+)\)")
_PICTURE = re.compile(r"!\[([^\]]*)\]\(((?:\.\./)?reports/[^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the README as the first page, whose links into docs/ lead to pages beside it, and the pictures of reference reports
    that pages show."""
    texts = {"index.md": re.sub(r"\]\(docs/", "](", (ROOT / "README.md").read_text(encoding="utf-8"))}
    texts |= {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
    for picture in dict.fromkeys(found[2] for text in texts.values() for found in _PICTURE.finditer(text)):
        files.append(File.generated(config, _at(picture), abs_src_path=str(ROOT / picture.removeprefix("../"))))
    files.append(File.generated(config, "index.md", content=_without_outer_links(texts["index.md"], "")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Makes links that lead out of docs/ plain text."""
    return markdown if page.file.src_uri == "index.md" else _without_outer_links(markdown, "../")


def _at(picture: str) -> str:
    """Returns where a picture of a reference report lies on the site."""
    return "pictures/" + "-".join(Path(picture.removeprefix("../")).parts[2:])


def _without_outer_links(text: str, out: str) -> str:
    """Returns a page whose links to other than pages and pictures of the site are their words, with the file's name.

    Args:
        text: of the page.
        out: how a link out of docs/ begins; of the README any that is no page.
    """

    def replaced(found: re.Match[str]) -> str:
        words, target = found.groups()
        path = target.partition("#")[0]
        inside = path.endswith((".md", ".svg")) and not path.startswith("../") and (ROOT / "docs" / path).is_file()
        if inside or (out and not path.startswith(out) and path.endswith((".md", ".svg"))):
            return found[0]
        return f"{words} (`{path.removeprefix('../')}`)"

    text = _PICTURE.sub(lambda found: f"![{found[1]}]({_at(found[2])})", text)
    return _LINK.sub(replaced, text)
