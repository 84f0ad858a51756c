"""Check metafiles, model-index.yml and the READMEs of configs.

Prints one line per fault and exits with 1 if there is any. The format is that
of OpenMMLab (``model-index.yml`` imports one ``metafile.yml`` per folder of
configs), read by ``mim`` and by mmpretrain's ``ModelHub``.
"""

import argparse
import hashlib
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mmengine.fileio import load

# A Markdown link that is neither a web address nor an anchor of the page.
_LINK = re.compile(r'\]\((?!https?://|mailto:|#)([^)\s#]+)')
_NAME = re.compile(
    r'_(?P<gpus>\d+)xb(?P<batch>\d+)-(?:[^_]*-)?(?P<epochs>\d+)e(?:_|$)'
)


def batch_and_epochs(name: str) -> tuple[int, int] | None:
    """Read the total batch size and the epochs from the name of a config.

    Args:
        name (str): Name in OpenMMLab's form, for instance
            ``unimoco_resnet50_8xb32-coslr-200e_in1k``.

    Returns:
        tuple[int, int] | None: (images per step over all GPUs, epochs); None
        if the name does not hold both, as names of mmdet do not.
    """
    match = _NAME.search(name)
    if match is None:
        return None
    return int(match['gpus']) * int(match['batch']), int(match['epochs'])


def find_configs(root: Path) -> list[Path]:
    """List the config files meant to be run, sorted, without ``_base_``.

    Args:
        root (Path): Folder that holds ``configs/``.

    Returns:
        list[Path]: Paths below ``root``.

    Raises:
        FileNotFoundError: If ``root`` has no folder ``configs``.
    """
    folder = Path(root) / 'configs'
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder} is not a folder')
    return sorted(
        path for path in folder.rglob('*.py') if '_base_' not in path.parts
    )


def check_metafiles(root: Path) -> list[str]:
    """Find every disagreement between metafiles, configs and READMEs.

    Args:
        root (Path): Folder that holds ``configs/`` and ``model-index.yml``.

    Returns:
        list[str]: One line per fault.

    Raises:
        FileNotFoundError: If ``root`` has no folder ``configs`` or no
            ``model-index.yml``.
    """
    root = Path(root)
    configs = find_configs(root)
    faults = list(_check_index(root))
    listed = Counter()
    for path in sorted(root.glob('configs/**/metafile.yml')):
        content = load(str(path)) or {}
        where = path.relative_to(root).as_posix()
        faults += [
            f'{where}: {fault}' for fault in _check_content(root, content)
        ]
        listed.update(m.get('Config') for m in content.get('Models') or [])
    for config in configs:
        times = listed[config.relative_to(root).as_posix()]
        if times != 1:
            faults.append(
                f'{config.relative_to(root)}: listed {times} times in '
                'metafiles, should be once'
            )
    faults += _check_links(root)
    return faults


def _check_index(root: Path) -> Iterator[str]:
    """Yield metafiles that model-index.yml misses, repeats or invents."""
    imported = Counter(load(str(root / 'model-index.yml')).get('Import') or [])
    on_disk = {
        path.relative_to(root).as_posix()
        for path in root.glob('configs/**/metafile.yml')
    }
    for name in sorted(on_disk | set(imported)):
        if name not in on_disk:
            yield f'model-index.yml: {name} does not exist'
        elif imported[name] != 1:
            yield (
                f'model-index.yml: {name} is imported {imported[name]} '
                'times, should be once'
            )


def _check_content(root: Path, content: dict) -> Iterator[str]:
    """Yield the faults of one metafile."""
    collections = content.get('Collections') or []
    for collection in collections:
        name = collection.get('Name')
        if not name:
            yield 'a collection has no Name'
        # Transfer and demo have no paper.
        if 'Paper' in collection and 'Title' not in collection['Paper']:
            yield f'collection {name}: Paper has no Title'
        readme = collection.get('README')
        if not readme or not (root / readme).is_file():
            yield f'collection {name}: README {readme} does not exist'
    names = {collection.get('Name') for collection in collections}
    for model in content.get('Models') or []:
        for fault in _check_model(root, model, names):
            yield f'{model.get("Name")}: {fault}'


def _check_model(root: Path, model: dict, collections: set) -> Iterator[str]:
    """Yield the faults of one entry of ``Models``."""
    config = model.get('Config')
    if not config or not (root / config).is_file():
        yield f'Config {config} does not exist'
    elif Path(config).stem != model.get('Name'):
        yield f'Name differs from the file name of {config}'
    if model.get('In Collection') not in collections:
        yield (
            f'In Collection {model.get("In Collection")} is not a '
            'collection of this metafile'
        )
    for field in ('Weights', 'Training Log'):
        path = root / str(model.get(field, ''))
        if field in model and not path.is_file():
            yield f'{field} {model[field]} does not exist'
        elif field == 'Weights' and field in model:
            digest = hashlib.md5(path.read_bytes()).hexdigest()
            if digest != model.get('MD5'):
                yield f'MD5 of {model[field]} is {digest}'
    metadata = model.get('Metadata') or {}
    named = batch_and_epochs(str(model.get('Name')))
    given = (metadata.get('Batch Size'), metadata.get('Epochs'))
    if named is not None and named != given:
        yield (
            f'Metadata gives batch size and epochs {given}, the name {named}'
        )


def _check_links(root: Path) -> Iterator[str]:
    """Yield relative links in the READMEs of configs that lead nowhere."""
    for page in sorted(root.glob('configs/**/*.md')):
        for target in _LINK.findall(page.read_text(encoding='utf-8')):
            if not (page.parent / target).exists():
                yield f'{page.relative_to(root)}: link to missing {target}'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'root',
        nargs='?',
        type=Path,
        default=Path(__file__).resolve().parents[2],
        help='folder with configs/ and model-index.yml (default: this one)',
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    try:
        faults = check_metafiles(args.root)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    for fault in faults:
        print(fault)
    count = len(find_configs(args.root))
    print(f'{count} configs checked, {len(faults)} faults')
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
