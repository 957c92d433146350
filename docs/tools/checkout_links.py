"""A hook of MkDocs: links from a page to a file of the checkout, which the site does not hold.

On a code host such a link opens the file. In the site it becomes the file's path. A link to a file
that is not there is left as it is, and MkDocs then warns of it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"(^```.*?^```\s*$)", re.MULTILINE | re.DOTALL)


def without_checkout_links(text: str, page: Path, docs: Path) -> str:
    """Return a page's text with each link out of the docs replaced by words and the file's path.

    Args:
        text: Markdown.
        page: The page's file.
        docs: The folder of the docs, in the root of the checkout.
    """
    root = docs.parent

    def path_of(link: re.Match[str]) -> str:
        words, target, _ = link.groups()
        if "://" in target:
            return link[0]
        file = (page.parent / target).resolve()
        if docs in file.parents or root not in file.parents or not file.exists():
            return link[0]
        name = str(file.relative_to(root))
        return f"`{name}`" if words.strip("`") in (name, file.name) else f"{words} (`{name}`)"

    parts = FENCE.split(text)
    return "".join(p if FENCE.fullmatch(p) else LINK.sub(path_of, p) for p in parts)


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Rewrite one page, as MkDocs asks its hooks."""
    docs = Path(config["docs_dir"]).resolve()
    return without_checkout_links(markdown, Path(page.file.abs_src_path).resolve(), docs)
