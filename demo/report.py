"""The report of a run as Markdown and as one self-contained HTML file."""

import base64
import re
from collections.abc import Iterator
from html import escape

from .results import (
    COLUMNS,
    TRANSFER_COLUMNS,
    finding_lines,
    next_commands,
    result_rows,
    transfer_rows,
)

TITLE = 'UniMoCo on Fashion-MNIST'
INTRODUCTION = (
    'A narrow ResNet-18 was pre-trained with UniMoCo on 6 000 images of '
    'Fashion-MNIST without labels, with 10 % and with 100 % of the labels, '
    'for about the same number of steps. '
    'Each frozen backbone was then evaluated on 2 000 test images by a vote '
    'of the nearest training images (kNN) and by a linear classifier on its '
    'features. For comparison, the same network was trained by cross-entropy '
    'on the labeled images alone, for as many steps; there, the linear '
    'classifier is its own.'
)
TRANSFER_INTRODUCTION = (
    'Each backbone, including random weights, was then fine-tuned on {train} '
    'scenes of one to five objects: as a small Mask R-CNN (boxes and masks of '
    'objects) and as an FCN (class of each pixel), with the same settings for '
    'each. They were evaluated on {val} other scenes composed of test images. '
    'AP is the mean over IoU 0.5 to 0.95.'
)
CAPTIONS = {
    'curves.png': 'Left: mean training loss of each epoch. More labels mean '
    'more positives and a larger loss, so compare only the shapes of the '
    'curves. Right: kNN accuracy during pre-training, with the standard '
    'deviation over three recorded seeds.',
    'embedding.png': 't-SNE of the test images; near images have similar '
    'features. All panels use the same settings.',
    'transfer.png': 'Transfer from random weights and from each pre-training. '
    'Gray line: random weights. Error bars: standard deviation over three '
    'recorded seeds.',
    'predictions.png': 'The first validation scenes (not selected): ground '
    'truth, then the predictions from each backbone. Boxes: detections with a '
    'score of at least 0.5. Colors: classes.',
}

# Kind ('title', 'heading', 'text', 'list', 'table', 'figure' or 'code') and
# content.
Block = tuple[str, object]


def markdown_report(summary: dict) -> str:
    """The report as Markdown, to be written beside its pictures."""
    return '\n\n'.join(map(_markdown, _blocks(summary))) + '\n'


def html_report(summary: dict, pictures: dict[str, bytes]) -> str:
    """The report as one HTML file with its pictures, PNGs by file name."""
    body = '\n'.join(_html(block, pictures) for block in _blocks(summary))
    # No line ends within a number, or before its unit.
    body = re.sub(r'(?<=\d) (?=\d{3}\b|%)', '&nbsp;', body)
    return _PAGE.format(title=TITLE, body=body)


def _blocks(summary: dict) -> Iterator[Block]:
    yield 'title', TITLE
    yield 'text', INTRODUCTION
    yield 'heading', 'Results'
    yield 'table', (COLUMNS, *result_rows(summary))
    yield 'list', finding_lines(summary)
    yield 'figure', 'curves.png'
    yield 'figure', 'embedding.png'
    rows = transfer_rows(summary)
    if rows:
        yield 'heading', 'Transfer to detection and segmentation'
        scenes = summary['transfer']['scenes']
        yield 'text', TRANSFER_INTRODUCTION.format(**scenes)
        yield 'table', (TRANSFER_COLUMNS, *rows)
        yield 'figure', 'transfer.png'
        yield 'figure', 'predictions.png'
    yield 'heading', 'Next'
    yield (
        'text',
        'Checkpoints, from the folder of the repository: '
        + ', '.join(entry['checkpoint'] for entry in summary['pretrain']),
    )
    yield 'code', next_commands(summary)
    yield 'heading', 'Setup'
    yield 'list', _setup_lines(summary)


def _setup_lines(summary: dict) -> list[str]:
    configs = [entry['config'] for entry in summary['pretrain']]
    configs.append(summary['linear_config'])
    configs += [entry['config'] for entry in summary['supervised']]
    configs += summary.get('transfer', {}).get('configs', [])
    machine = summary['machine']
    return [
        f'Seed: {summary["seed"]}',
        f'Configs: {", ".join(configs)}',
        "Settings: this project's choice for two CPU cores; "
        'configs/demo/README.md lists the differences to the published ones',
        f'Machine: {machine["processor"]}, {machine["cores"]} cores',
        f'Versions: {", ".join(map(" ".join, summary["versions"].items()))}',
    ]


def _markdown(block: Block) -> str:
    match block:
        case 'title', text:
            return f'# {text}'
        case 'heading', text:
            return f'## {text}'
        case 'list', lines:
            return '\n'.join(f'- {line}' for line in lines)
        case 'table', (header, *rows):
            rule = ['---', *('---:' for _ in header[1:])]
            return '\n'.join(
                f'| {" | ".join(row)} |' for row in (header, rule, *rows)
            )
        case 'figure', name:
            return f'![{CAPTIONS[name]}]({name})\n\n{CAPTIONS[name]}'
        case 'code', text:
            return f'```shell\n{text}\n```'
        case _, text:
            return text


def _html(block: Block, pictures: dict[str, bytes]) -> str:
    match block:
        case 'title', text:
            return f'<h1>{escape(text)}</h1>'
        case 'heading', text:
            return f'<h2>{escape(text)}</h2>'
        case 'list', lines:
            items = ''.join(f'<li>{escape(line)}</li>' for line in lines)
            return f'<ul>{items}</ul>'
        case 'table', (header, *rows):
            body = ''.join(_html_row('td', row) for row in rows)
            return f'<table>{_html_row("th", header)}{body}</table>'
        case 'figure', name:
            data = base64.b64encode(pictures[name]).decode()
            caption = escape(CAPTIONS[name])
            return (
                f'<figure><img alt="{caption}" '
                f'src="data:image/png;base64,{data}">'
                f'<figcaption>{caption}</figcaption></figure>'
            )
        case 'code', text:
            return f'<pre>{escape(text)}</pre>'
        case _, text:
            return f'<p>{escape(text)}</p>'


def _html_row(tag: str, cells: tuple[str, ...]) -> str:
    text = ''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)
    return f'<tr>{text}</tr>'


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
p, li {{ overflow-wrap: anywhere; }}
/* On a narrow screen they scroll. */
table, pre {{ display: block; max-width: 100%; overflow-x: auto; }}
table {{ border-collapse: collapse; }}
pre {{ background: #f5f5f5; padding: .8rem; font-size: .85rem; }}
th, td {{ padding: .4rem .9rem; border-bottom: 1px solid #ddd;
  text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }}
@media (max-width: 40rem) {{ th, td {{ padding: .4rem; }} }}
th:first-child, td:first-child {{ text-align: left; }}
figure {{ margin: 2rem 0; }}
figure img {{ max-width: 100%; height: auto; }}
figcaption {{ color: #555; font-size: .9rem; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
