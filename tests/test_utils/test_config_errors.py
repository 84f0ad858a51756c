"""Exceptions name their field and are never rebuilt as something else."""

import json
from urllib.error import HTTPError

import pytest
import torch

from mmunimoco.utils.config_errors import named_field, part_of_config


def raise_in_field(error):
    with (
        named_field('train_dataloader'),
        part_of_config('dataset'),
        part_of_config('dataset'),
    ):
        raise error


FIELD = r'^train_dataloader\.dataset\.dataset: '


@pytest.mark.parametrize(
    ('error', 'kind', 'text'),
    [
        (ValueError('a\n  b'), ValueError, 'a b$'),
        (TypeError('no option x'), TypeError, 'no option x$'),
        (KeyError('X is not registered'), ValueError, 'X is not registered$'),
        (
            FileNotFoundError(2, 'No such file', 'img'),
            FileNotFoundError,
            "there is no 'img'; check data_root",
        ),
        (
            NotADirectoryError(20, 'Not a directory', 'a'),
            NotADirectoryError,
            r'.*Not a dir',
        ),
        (
            RuntimeError('Found 0 files in a.'),
            ValueError,
            'Found 0 files in a; check data_root',
        ),
        # Subclasses whose constructors take more than a text.
        (HTTPError('https://a.b', 404, 'Gone', None, None), OSError, 'HTTP E'),
        (json.JSONDecodeError('bad', 'doc', 0), ValueError, 'bad: line 1'),
        (UnicodeDecodeError('utf-8', b'', 0, 1, 'bad'), ValueError, "'utf-8'"),
    ],
)
def test_wrong_setting_becomes_one_line(error, kind, text):
    with pytest.raises(kind, match=FIELD + text) as raised:
        raise_in_field(error)
    assert type(raised.value) is kind
    assert raised.value.__cause__ is error
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
    'error',
    [
        MemoryError('8 GB'),
        torch.cuda.OutOfMemoryError('CUDA out of memory'),
        RuntimeError('DataLoader worker exited unexpectedly'),
        NotImplementedError('later'),
        AssertionError('internal'),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_exceptions_pass_with_a_note(error):
    text = str(error)
    with pytest.raises(type(error)) as raised:
        raise_in_field(error)
    assert raised.value is error
    assert str(error) == text
    if hasattr(error, 'add_note'):
        assert error.__notes__ == [
            'while using train_dataloader.dataset.dataset of the config'
        ]


def test_field_is_found_in_the_cause():
    """A registry may have raised the exception anew."""
    with (
        pytest.raises(ValueError, match=r'^model\.head: anew'),
        named_field('model'),
    ):
        try:
            with part_of_config('head'):
                raise ValueError('old')
        except ValueError as error:
            raise ValueError('anew') from error
