"""The report of a run: Markdown, and HTML that needs no other file."""

import base64
from html import escape

from .tables import (
    COLUMNS,
    TRANSFER_COLUMNS,
    finding_lines,
    result_rows,
    transfer_rows,
)

TITLE = 'UniMoCo on Fashion-MNIST'
INTRODUCTION = (
    'A narrow ResNet-18 was pre-trained with UniMoCo on 6 000 images of '
    'Fashion-MNIST, once without labels, once with a tenth of them, once with '
    'all. Each backbone was then judged on 2 000 test images in two ways that '
    'leave it unchanged: by a vote of the nearest training images (kNN), '
    'and by a linear classifier trained on its features.'
)
CAPTIONS = {
    'curves.png': 'Left: mean training loss of each epoch. With labels there '
    'are more positives, which raises the sums in the loss, so only the shape '
    'of the curves compares. Right: kNN accuracy during pre-training.',
    'embedding.png': 'The test images in the plane: near each other means '
    'similar features. Same settings for each panel.',
}

TRANSFER_TITLE = 'Transfer to detection and segmentation'
TRANSFER_INTRODUCTION = (
    'Each backbone, random weights too, was then trained further, all layers '
    'of it, on {train} scenes of one to five objects: once as a small Mask '
    'R-CNN (boxes and masks of objects), once as an FCN (class of each '
    'pixel), with the same settings for each. Judged on {val} other scenes, '
    'composed of test images. AP is the mean over IoU 0.5 ... 0.95.'
)
TRANSFER_CAPTIONS = {
    'transfer.png': 'Transfer from random weights and from each pre-training. '
    'Grey line: random weights.',
    'predictions.png': 'The first scenes of validation, never chosen: ground '
    'truth, then what each backbone led to. Boxes: detections with a score '
    'of at least 0.5; colours are classes.',
}


def markdown_report(summary: dict) -> str:
    """Write the report as Markdown, next to its pictures.

    Args:
        summary (dict): From :func:`build_summary`.

    Returns:
        str: The text.
    """
    lines = [f'# {TITLE}', '', INTRODUCTION, '', '## Results', '']
    lines += _markdown_table(COLUMNS, result_rows(summary))
    lines += ['', *(f'- {line}' for line in finding_lines(summary)), '']
    lines += _markdown_figures(CAPTIONS)
    rows = transfer_rows(summary)
    if rows:
        lines += [f'## {TRANSFER_TITLE}', '', _transfer_text(summary), '']
        lines += [*_markdown_table(TRANSFER_COLUMNS, rows), '']
        lines += _markdown_figures(TRANSFER_CAPTIONS)
    lines += ['## How', '']
    lines += _markdown_table(('', ''), _facts(summary))
    return '\n'.join(lines) + '\n'


def html_report(summary: dict, pictures: dict[str, bytes]) -> str:
    """Write the report as one HTML file.

    Args:
        summary (dict): From :func:`build_summary`.
        pictures (dict[str, bytes]): PNGs by the names of ``CAPTIONS`` and,
            with transfer, of ``TRANSFER_CAPTIONS``.

    Returns:
        str: The text, with the pictures in it.
    """
    findings = ''.join(f'<li>{escape(x)}</li>' for x in finding_lines(summary))
    return _PAGE.format(
        title=TITLE,
        introduction=INTRODUCTION,
        results=_html_table(COLUMNS, result_rows(summary)),
        findings=findings,
        figures=_html_figures(pictures, CAPTIONS),
        transfer=_html_transfer(summary, pictures),
        facts=_html_table((), _facts(summary)),
    )


def _facts(summary: dict) -> list[tuple[str, str]]:
    configs = [entry['config'] for entry in summary['pretrain']]
    configs.append(summary['linear_config'])
    configs += summary.get('transfer', {}).get('configs', [])
    machine = summary['machine']
    return [
        ('Seed', str(summary['seed'])),
        ('Configs', ', '.join(configs)),
        (
            'Settings',
            "this project's choice for two CPU cores; configs/demo/README.md "
            'says what differs from the published method',
        ),
        ('Machine', f'{machine["processor"]}, {machine["cores"]} cores'),
        ('Versions', ', '.join(map(' '.join, summary['versions'].items()))),
    ]


def _transfer_text(summary: dict) -> str:
    return TRANSFER_INTRODUCTION.format(**summary['transfer']['scenes'])


def _html_transfer(summary: dict, pictures: dict[str, bytes]) -> str:
    rows = transfer_rows(summary)
    if not rows:
        return ''
    return (
        f'<h2>{TRANSFER_TITLE}</h2><p>{escape(_transfer_text(summary))}</p>'
        + _html_table(TRANSFER_COLUMNS, rows)
        + _html_figures(pictures, TRANSFER_CAPTIONS)
    )


def _markdown_figures(captions: dict[str, str]) -> list[str]:
    lines = []
    for name, caption in captions.items():
        lines += [f'![{caption}]({name})', '', caption, '']
    return lines


def _markdown_table(header: tuple, rows: list[tuple]) -> list[str]:
    rule = ['---', *('---:' for _ in header[1:])]
    return [f'| {" | ".join(row)} |' for row in (header, rule, *rows)]


def _html_table(header: tuple, rows: list[tuple]) -> str:
    head = ''.join(f'<th>{escape(cell)}</th>' for cell in header)
    body = ''.join(
        '<tr>' + ''.join(f'<td>{escape(c)}</td>' for c in row) + '</tr>'
        for row in rows
    )
    head = f'<thead><tr>{head}</tr></thead>' if header else ''
    kind = 'results' if header else 'facts'
    return f'<table class="{kind}">{head}<tbody>{body}</tbody></table>'


def _html_figures(pictures: dict[str, bytes], captions: dict) -> str:
    return ''.join(
        _html_figure(pictures[name], caption)
        for name, caption in captions.items()
    )


def _html_figure(picture: bytes, caption: str) -> str:
    data = base64.b64encode(picture).decode()
    return (
        f'<figure><img alt="{escape(caption)}" '
        f'src="data:image/png;base64,{data}">'
        f'<figcaption>{escape(caption)}</figcaption></figure>'
    )


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.55 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 60rem; margin: 2.5rem auto; padding: 0 1.25rem; }}
h1 {{ font-size: 1.7rem; line-height: 1.2; }}
h2 {{ font-size: 1.2rem; margin-top: 2.2rem; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .4rem .9rem; border-bottom: 1px solid #ddd;
  text-align: left; vertical-align: top; }}
.results th:not(:first-child), .results td:not(:first-child) {{
  text-align: right; font-variant-numeric: tabular-nums; }}
.facts {{ font-size: .9rem; }}
figure {{ margin: 2rem 0; }}
figure img {{ max-width: 100%; height: auto; }}
figcaption {{ color: #555; font-size: .9rem; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{introduction}</p>
<h2>Results</h2>
{results}
<ul>{findings}</ul>
{figures}
{transfer}
<h2>How</h2>
{facts}
</body>
</html>
"""
