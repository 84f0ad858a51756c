"""Links of pages that are also read in the repository."""

import os
import re
from pathlib import Path

_LINK = re.compile(r'(?<!!)\[([^\]]*)\]\(([^)\s:]+)\)')
_IMAGE = re.compile(r'!\[([^\]]*)\]\(([^)\s:]+)\)')
GENERATED = 'docs/_generated'


def generated_name(source: str) -> str:
    """Name of the page made from a Markdown file outside of ``docs``.

    Args:
        source (str): Path from the repository, such as
            ``configs/unimoco/README.md``.

    Returns:
        str: Path of the page from the repository.
    """
    name = source.removesuffix('.md').removesuffix('/README')
    return f'{GENERATED}/{name.replace("/", "-").lower()}.md'


def rewrite(text: str, page: str, root: Path) -> str:
    """Let relative links lead to pages of the site where there are any.

    A link to a README becomes one to its page; a link to another file of the
    repository becomes its path, as text: the site does not contain it.

    Args:
        text (str): Markdown.
        page (str): Name of the page in ``docs``, without suffix.
        root (Path): The repository.

    Returns:
        str: Markdown.

    Raises:
        ValueError: If a link leads to nothing.
    """
    here = _folder_of(page, root)

    def replace(match: re.Match) -> str:
        title, target = match.groups()
        path, _, anchor = target.partition('#')
        if not path:
            return match[0]
        place = (here / path).resolve()
        if not place.exists():
            raise ValueError(f'{page}: {target} does not exist')
        found = _page_of(place, root)
        if found is None:
            return f'{title} (`{place.relative_to(root).as_posix()}`)'
        where = os.path.relpath(root / found, (root / 'docs' / page).parent)
        return f'[{title}]({where}{"#" + anchor if anchor else ""})'

    def picture(match: re.Match) -> str:
        place = (here / match[2]).resolve()
        where = os.path.relpath(place, (root / 'docs' / page).parent)
        return f'![{match[1]}]({where})'

    blocks = re.split(r'(^```.*?^```$)', text, flags=re.MULTILINE | re.DOTALL)
    return ''.join(
        block
        if block.startswith('```')
        else _LINK.sub(replace, _IMAGE.sub(picture, block))
        for block in blocks
    )


def _folder_of(page: str, root: Path) -> Path:
    """Folder from which the links of a page count."""
    source = root / 'docs' / f'{page}.md'
    first = source.read_text(encoding='utf-8').partition('\n')[0]
    found = re.fullmatch(r'<!-- from (.*) -->', first)
    return (root / found[1]).parent if found else source.parent


def _page_of(place: Path, root: Path) -> str | None:
    """The page of a file or folder; None if it has none."""
    if place.is_dir():
        place = place / 'README.md'
    try:
        name = place.relative_to(root).as_posix()
    except ValueError:
        return None
    if not name.endswith('.md') or not place.is_file():
        return None
    if name.startswith('docs/'):
        return name
    page = generated_name(name)
    return page if (root / page).is_file() else None
