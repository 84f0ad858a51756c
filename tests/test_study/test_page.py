"""The page in a browser: no errors, tables sort, plots show."""

import re
import shutil
import subprocess

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mmunimoco.study.report import write_report

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason='there is no chromium'
)
SCORES = dict(small=(5.5, 6.0, 7.0), nan=(float('nan'),))
SCORES |= dict(large=(70.0, 71.0, 72.0), middle=(41.0,))
# Run after the page's own script; what it writes is in the dumped DOM.
PROBE = """
<script>
window.addEventListener('load', () => {
  const images = Array.from(document.images);
  const shown = images.filter(image => image.naturalWidth > 100).length;
  document.querySelector('#details thead button').click();
  document.body.dataset.probe = [
    `images ${shown}/${images.length}`,
    `overflow ${document.documentElement.scrollWidth - innerWidth}`,
  ].join(' ');
});
</script>
</body>"""


def open_page(page, size='1200,900', address=''):
    """The DOM after all scripts have run, and what chromium has logged."""
    result = subprocess.run(
        [
            *(CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu'),
            *('--enable-logging=stderr', f'--window-size={size}'),
            f'--user-data-dir={page.parent / "profile"}',
            *('--virtual-time-budget=2000', '--dump-dom'),
            f'file://{page}{address}',
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return result.stdout, result.stderr


def first_column(dom, table):
    body = re.search(rf'id="{table}".*?<tbody>(.*?)</tbody>', dom, re.DOTALL)
    return re.findall(r'<tr><td[^>]*>(?:<[^>]*>)?([^<]*)', body[1])


@pytest.fixture
def page(tmp_path):
    """A page with all tables and plots."""
    records = [
        dict(
            status='done',
            variant=name,
            group=name,
            grid={},
            label_ratio=ratio,
            seed=seed,
            evaluation='knn',
            protocol=dict(type='knn', metrics=['top1']),
            metrics=dict(top1=dict(last=value, best=value)),
            curves=dict(top1=[[1, value / 2], [2, value]]),
            loss=[[10, 2.0], [20, 1.0]],
            unit='epoch',
            seconds=61.0,
            log='runs/x.log',
        )
        for ratio, (name, values) in enumerate(SCORES.items())
        for seed, value in enumerate(values)
    ]
    failed = dict(records[0], status='failed', metrics={}, curves={})
    failed['tail'] = ['Traceback', 'ValueError: <b>not bold</b>']
    others = dict(name='O', evaluation='knn', value=50.0, source='a paper')
    expected = dict(evaluation='knn', metric='top1', by=0.0)
    expected |= dict(better=['large'], than=['small'])
    (tmp_path / 'figures').mkdir()
    info = PngInfo()
    info.add_text('Description', 'A <caption>')
    picture = Image.new('RGB', (120, 120))
    picture.save(tmp_path / 'figures/own.png', pnginfo=info)
    picture.save(tmp_path / 'figures/z.png')
    page = write_report(
        *(tmp_path, 'A <title>', [*records, failed], [others]),
        *([expected], 'A <description> of 6 000 images, 10 % labeled'),
    )
    text = page.read_text().replace('</body>', PROBE)
    page.write_text(text)
    return page


def test_page_in_a_browser(page):
    dom, log = open_page(page)
    assert 'CONSOLE' not in log, log
    assert 'data-probe="images 6/6' in dom
    # No line breaks within a number.
    text = 'A &lt;description&gt; of 6&nbsp;000 images, 10&nbsp;% labeled'
    assert text in dom and 'A &lt;caption&gt;' in dom
    (claim,) = first_column(dom, 'expectations')
    assert claim == 'knn: top1: large better than small'
    markdown = (page.parent / 'report.md').read_text()
    for caption, path in (('A <caption>', 'own.png'), ('z', 'z.png')):
        assert f'![{caption}](figures/{path})' in markdown
    published = 'O (published, not run here: a paper)'
    assert first_column(dom, 'results') == [*SCORES, published]
    # The probe has clicked on the names in this table.
    assert first_column(dom, 'details') == sorted(SCORES)
    assert 'A &lt;title&gt;' in dom and '&lt;b&gt;not bold' in dom
    # By number, not by text: 6.17 < 41.00 < 50.0 < 71.00.
    dom, log = open_page(page, '500,900', '#sort=results:1')
    assert 'CONSOLE' not in log, log
    rising = ['small', 'middle', published, 'large']
    assert first_column(dom, 'results') == [*rising, 'nan']
    # The tables scroll, the page does not.
    assert int(re.search(r'overflow (-?\d+)', dom)[1]) <= 0
    dom, _ = open_page(page, address='#sort=results:1:desc')
    assert first_column(dom, 'results') == [*rising[::-1], 'nan']
