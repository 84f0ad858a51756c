"""The cells of docs/quickstart.ipynb run, with one epoch instead of four."""

import json
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

PATH = Path(__file__).parents[2] / 'docs/quickstart.ipynb'
CELLS = json.loads(PATH.read_text(encoding='utf-8'))['cells']
CODE = [cell for cell in CELLS if cell['cell_type'] == 'code']


@pytest.mark.slow
def test_cells_run_in_order(monkeypatch, capsys, tmp_path):
    shown = []
    monkeypatch.setattr(plt, 'show', lambda: shown.append(plt.gcf()))
    scope = {'__name__': 'notebook'}
    for cell in CODE:
        source = ''.join(cell['source'])
        source = source.replace('max_epochs=4', 'max_epochs=1')
        source = source.replace('= mkdtemp()', f'= {str(tmp_path)!r}')
        exec(source, scope)
    assert len(shown) == 3
    # kNN before training, and after an epoch.
    assert len(scope['scores']) == 2
    text = capsys.readouterr().out
    assert 'The nearest image has the same class for' in text
    assert scope['votes'].mean() > 0.6
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
