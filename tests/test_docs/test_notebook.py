"""The cells of docs/quickstart.ipynb run, with less data and one epoch."""

import json
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from small_configs import dicts_in

PATH = Path(__file__).parents[2] / 'docs/quickstart.ipynb'
CELLS = json.loads(PATH.read_text(encoding='utf-8'))['cells']
CODE = [cell for cell in CELLS if cell['cell_type'] == 'code']


def test_cells_run_in_order(monkeypatch, capsys, tmp_path):
    shown = []
    monkeypatch.setattr(plt, 'show', lambda: shown.append(plt.gcf()))

    def reduce(cfg):
        """Keep every fourth image."""
        images = np.load(cfg.val_dataloader.dataset.ann_file)
        classes = dict(classes=images['classes'])
        fewer = {k: images[k][::4] for k in images.files} | classes
        np.savez(tmp_path / 'fewer.npz', **fewer)
        for node in dicts_in(cfg._cfg_dict):
            if 'ann_file' in node:
                node['ann_file'] = str(tmp_path / 'fewer.npz')

    scope = {'__name__': 'notebook', 'reduce': reduce}
    for cell in CODE:
        source = ''.join(cell['source'])
        source = source.replace('archive =', 'reduce(cfg); archive =')
        source = source.replace('max_epochs=4', 'max_epochs=1')
        source = source.replace('= mkdtemp()', f'= {str(tmp_path)!r}')
        exec(source, scope)
    assert len(shown) == 3
    # kNN before training, and after an epoch.
    assert len(scope['scores']) == 2
    text = capsys.readouterr().out
    assert 'The nearest image has the same class for' in text
    assert scope['votes'].mean() > 0.5
    plt.close('all')


def test_outputs_are_stored():
    """Readers see them without running anything; no path of a machine."""
    pictures = [
        output
        for cell in CODE
        for output in cell['outputs']
        if output['output_type'] == 'display_data'
    ]
    assert len(pictures) == 3
    assert [cell['execution_count'] for cell in CODE] == [1, 2, 3, 4, 5]
    text = ''.join(''.join(cell['source']) for cell in CELLS)
    assert 'max_epochs=4' in text and '/home/' not in PATH.read_text()
