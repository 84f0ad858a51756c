"""The documentation builds without a warning, and its links lead somewhere."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sphinx = pytest.mark.skipif(
    shutil.which('sphinx-build', path=Path(sys.executable).parent) is None,
    reason='tools/install.sh --dev installs Sphinx for Python 3.11 and newer',
)


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """The built pages."""
    out = tmp_path_factory.mktemp('site')
    command = [sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going']
    done = subprocess.run(
        [*command, '-d', out / 'trees', ROOT / 'docs', out / 'html'],
        env=dict(PYTHONPATH=str(ROOT), PATH=''),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out / 'html'


@sphinx
def test_every_page_is_in_the_catalogue(site):
    index = (site / 'index.html').read_text()
    for page in ROOT.glob('docs/*.md'):
        assert (site / f'{page.stem}.html').is_file(), page
        if page.stem != 'index':
            assert f'href="{page.stem}.html"' in index, page
    for folder in ('unimoco', 'demo', 'benchmarks-classification'):
        assert (site / f'_generated/configs-{folder}.html').is_file()


@sphinx
def test_pages_that_follow_from_files(site):
    models = (site / '_generated/api-models.html').read_text()
    for name in ('UniMoCoHead', 'UniConLoss', 'collapsed_loss'):
        assert re.search(rf'id="mmunimoco\.models\.[\w.]*{name}"', models), (
            name
        )
    plots = (site / '_generated/benchmark-plots.html').read_text()
    drawn = ['head']
    for study in ('demo', 'cifar10'):
        drawn += [f'{study}_label_ratio', f'{study}_bars']
    for name in (f'plot_{x}.svg' for x in drawn):
        assert name in plots
        assert '<svg' in (site / '_images' / name).read_text()
    zoo = (site / '_generated/model-zoo.html').read_text()
    configs = ROOT.glob('configs/unimoco/*.py')
    assert all(path.name in zoo for path in configs)


@sphinx
def test_links_within_the_site_lead_to_a_place(site):
    ids = {}

    def ids_of(page):
        if page not in ids:
            found = re.findall(r'\bid="([^"]+)"', page.read_text())
            ids[page] = set(found)
        return ids[page]

    checked = 0
    for page in [*site.glob('*.html'), *site.glob('_generated/*.html')]:
        if page.stem in ('search', 'genindex', 'py-modindex'):
            continue
        for target in re.findall(r'href="([^"]+)"', page.read_text()):
            path, _, anchor = target.partition('#')
            if re.match(r'\w+:', target) or not path.endswith('.html'):
                continue
            place = (page.parent / path).resolve()
            assert place.is_file(), (page.name, target)
            if anchor and '/_modules/' not in str(place):
                assert anchor in ids_of(place), (page.name, target)
            checked += 1
    assert checked > 500


def test_links_of_the_readme_lead_to_a_place():
    """README.md is no page of the site."""
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    targets = re.findall(r'\]\(([^)\s:]+)\)', text)
    assert len(targets) > 10
    for target in targets:
        path, _, anchor = target.partition('#')
        assert (ROOT / path).exists(), target
        if anchor:
            page = (ROOT / path).read_text(encoding='utf-8')
            headings = re.findall(r'^#+ (.*)$', page, re.MULTILINE)
            names = {x.lower().replace(' ', '-') for x in headings}
            assert anchor in names, target


def test_links_are_rewritten(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'docs'))
    from sphinx_pages.links import rewrite

    for name in (
        *('docs/a.md', 'docs/b.md', 'configs/x/README.md', 'configs/x/c.py'),
        *('docs/_generated/configs-x.md', 'pics/p.png'),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('')
    page = tmp_path / 'docs/_generated/configs-x.md'
    page.write_text('<!-- from configs/x/README.md -->\n')

    def links(text, page):
        return rewrite(text, page, tmp_path)

    assert links('[a](b.md#c)', 'a') == '[a](b.md#c)'
    assert links('[a](../configs/x)', 'a') == '[a](_generated/configs-x.md)'
    assert links('[a](../configs/x/c.py)', 'a') == 'a (`configs/x/c.py`)'
    assert links('[a](https://b.c/d)', 'a') == '[a](https://b.c/d)'
    assert links('```\n[a](z.md)\n```', 'a') == '```\n[a](z.md)\n```'
    # Of a page made from another file, links count from that file.
    generated = '_generated/configs-x'
    assert links('[a](../../docs/b.md)', generated) == '[a](../b.md)'
    picture = links('![a](../../pics/p.png)', generated)
    assert picture == '![a](../../pics/p.png)'
    with pytest.raises(ValueError, match='a: z.md does not exist'):
        links('[a](z.md)', 'a')
