"""Write pages for the configs, the models and the API."""

from pathlib import Path

import yaml

from .links import GENERATED, generated_name
from .plots import write_plots

# Rooms of the package, as chapters of the API.
_API = {
    'models': 'Algorithm, head, losses, batch norm, views on the device',
    'datasets': 'Datasets, wrappers and transforms',
    'engine': 'Hooks, loops and launching',
    'evaluation': 'kNN and the linear probe on cached features',
    'converters': 'Checkpoints of other projects',
}
_MODULES = {
    'models': ('losses', 'momentum_encoder', 'split_batch_norm'),
    'datasets': ('label_lists', 'label_selection'),
    'engine': ('launch', 'knn_loop', 'collapse'),
    'evaluation': ('knn', 'features', 'cached_linear_probe'),
    'converters': (),
}
# Not in the catalogue by itself.
_OTHERS = ('CHANGELOG.md',)


def write_pages(root: Path) -> None:
    """Write all generated pages.

    Args:
        root (Path): The repository.
    """
    folder = root / GENERATED
    folder.mkdir(exist_ok=True)
    for old in folder.glob('*.md'):
        old.unlink()
    readmes = sorted(root.glob('configs/**/README.md'))
    sources = [path.relative_to(root).as_posix() for path in readmes]
    for source in (*sources, *_OTHERS):
        text = (root / source).read_text(encoding='utf-8')
        _write(
            root / generated_name(source), f'<!-- from {source} -->\n{text}'
        )
    _write(folder / 'configs-index.md', _configs_index(sources))
    _write(folder / 'model-zoo.md', _zoo(root))
    page = write_plots(root / 'docs/benchmarks', folder)
    _write(folder / 'benchmark-plots.md', page)
    for room, title in _API.items():
        _write(folder / f'api-{room}.md', _api(room, title))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding='utf-8')


def _configs_index(sources: list[str]) -> str:
    names = [Path(generated_name(source)).stem for source in sources]
    lines = '\n'.join(names)
    return (
        '# Configs, folder by folder\n\n'
        'Each folder of `configs/` has a table of its files, how they differ '
        'and how they are run.\n\n'
        f'```{{toctree}}\n:maxdepth: 1\n\n{lines}\n```\n'
    )


def _zoo(root: Path) -> str:
    """All models of the metafiles, with their results."""
    index = yaml.safe_load((root / 'model-index.yml').read_text())
    text = (
        '<!-- from model-index.yml -->\n# Models\n\n'
        'Generated from `model-index.yml` and the metafiles it imports. A '
        'result stands here only if this project has produced it, with its '
        'log; published numbers are in the pages of the configs, marked as '
        'published.\n'
    )
    for name in index['Import']:
        content = yaml.safe_load((root / name).read_text())
        title = Path(name).parent.relative_to('configs').as_posix()
        text += f'\n## {title}\n\n| config | data | results |\n|---|---|---|\n'
        for model in content.get('Models', []):
            data = (model.get('Metadata') or {}).get('Training Data', '')
            text += (
                f'| `{Path(model["Config"]).name}` | {data} '
                f'| {_results(model)} |\n'
            )
    return text


def _results(model: dict) -> str:
    found = []
    for result in model.get('Results') or []:
        metrics = ', '.join(f'{k} {v}' for k, v in result['Metrics'].items())
        found.append(f'{result["Task"]} ({result["Dataset"]}): {metrics}')
    if model.get('Weights'):
        found.append(f'[weights]({model["Weights"]})')
    return '; '.join(found) or 'none yet'


def _api(room: str, title: str) -> str:
    text = f'# `mmunimoco.{room}`\n\n{title}.\n'
    documented = [f'mmunimoco.{room}']
    documented += [f'mmunimoco.{room}.{name}' for name in _MODULES[room]]
    for module in documented:
        heading = f'\n## `{module}`\n' if module != documented[0] else ''
        options = '   :imported-members:\n' if module == documented[0] else ''
        text += (
            f'{heading}\n```{{eval-rst}}\n.. automodule:: {module}\n'
            f'{options}```\n'
        )
    return text
