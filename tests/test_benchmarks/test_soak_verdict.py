"""A verdict that is fed bad news says so, and nothing else."""

import pytest

from benchmarks.soak.record import Injected, Record, Start
from benchmarks.soak.verdict import judge


def good_record():
    """Two restarts of a run of 100 steps, a checkpoint every 10."""
    first = Start(0, first=0, last=37, codes=[-9], told_step=0)
    second = Start(
        1,
        expected='iter_20.pth',
        damaged='iter_30.pth',
        told='iter_20.pth',
        told_step=20,
        told_damaged=True,
        first=20,
        last=62,
        codes=[75],
        failed_saves=[60],
    )
    third = Start(
        2,
        expected='iter_62.pth',
        told='iter_62.pth',
        told_step=62,
        first=62,
        last=100,
        codes=[0],
        broken_listed=3,
    )
    return Record(
        steps=100,
        interval=10,
        undisturbed=Start(0, first=0, last=100, codes=[0], broken_listed=3),
        broken_images=4,
        starts=[first, second, third],
        faults=[
            Injected('kill', 'truncated', 0, 37, 37, 9.0, True, 'iter_30.pth',
                     lost=17, bound=20),
            Injected('full_disk', None, 1, 55, 55, 19.0, True),
            Injected('sigterm', None, 1, 61, 61, 20.0, True, lost=0, bound=0),
        ],
        differences=[],
        memory=dict(
            undisturbed_median_mib=900.0,
            steps_judged=60,
            growth_mib=-0.5,
            growth_bound_mib=32.0,
            medians_of_starts_mib={'0': 890.0, '1': 905.0},
            level_bound_mib=990.0,
        ),
        checkpoints_left=['iter_100.pth', 'iter_90.pth', 'iter_80.pth'],
    )  # fmt: skip


def test_good_news():
    checks = judge(good_record())
    assert [check.name for check in checks if not check.passed] == []
    details = ' / '.join(check.detail for check in checks)
    assert '3 faults, 2 restarts' in details
    assert '17 steps in all, 17 at most' in details
    # 37 + 42 + 38 steps were trained.
    assert '117 steps, all losses the same' in details
    assert '3 of 4' in details


def set_(path, value):
    """Change a part of a record, named as 'starts.1.codes'."""

    def change(record):
        *parents, last = path.split('.')
        place = record
        for name in parents:
            place = _get(place, name)
        if isinstance(place, dict):
            place[last] = value
        else:
            setattr(place, last, value)

    return change


def _get(place, name):
    if isinstance(place, list):
        return place[int(name)]
    return place[name] if isinstance(place, dict) else getattr(place, name)


END = 'both runs end'
ENDED = 'faults end what they should end'
SAYS = 'every restart says what it goes on from'
LOST = 'at most an interval is lost'
STEPS = 'every step is the undisturbed one'
LAST = 'the last checkpoint is the undisturbed one'
BROKEN = 'broken images are replaced and listed'
MEMORY = 'memory is flat'
LEFT = 'nothing is left behind'


@pytest.mark.parametrize(
    ('change', 'name', 'word'),
    [
        (set_('undisturbed.codes', [1]), END, 'the undisturbed run ended'),
        (set_('starts.2.codes', [1]), END, r'status [1]'),
        (set_('starts.2.codes', [0, None]), END, 'None'),
        (set_('starts.2.last', 90), END, 'step 90 of 100'),
        (set_('faults.1.had_effect', False), ENDED, 'full_disk at step 55'),
        (set_('starts.0.codes', [1]), ENDED, 'after kill start 0'),
        (set_('starts.0.codes', [0]), ENDED, 'after kill start 0'),
        (set_('starts.1.codes', [0]), ENDED, 'after sigterm start 1'),
        (set_('starts.1.codes', [75, 1]), ENDED, 'after sigterm start 1'),
        (set_('faults.0.kind', 'kill_worker'), ENDED, 'after kill_worker'),
        (set_('starts.1.hung', True), ENDED, 'did not end by itself'),
        (set_('starts.1.told_step', None), SAYS, 'start 1 did not say'),
        (set_('starts.1.told', 'iter_10.pth'), SAYS, 'not from iter_20.pth'),
        (set_('starts.1.told_step', 21), SAYS, 'at step 21'),
        (set_('starts.1.first', 19), SAYS, 'goes on at step 19, not 20'),
        (set_('starts.1.told_damaged', False), SAYS, 'iter_30.pth is damaged'),
        (set_('faults.0.lost', 21), LOST, 'cost 21 steps of at most 20'),
        (set_('faults.2.lost', 1), LOST, 'cost 1 steps of at most 0'),
        (set_('faults.2.lost', None), LOST, 'unknown'),
        (set_('faults.0.lost', -1), LOST, 'cost -1'),
        (set_('starts.1.first_other_loss', 23), STEPS, 'start 1: another'),
        (set_('starts.2.odd_steps', ['63 0x1p0']), STEPS, 'out of order'),
        (set_('differences', None), LAST, 'not both'),
        (set_('differences', ['/state_dict/a']), LAST, '/state_dict/a'),
        (set_('undisturbed.broken_listed', 5), BROKEN, '5 of 4'),
        (set_('starts.2.broken_listed', 2), BROKEN, '2 are listed, 3'),
        (set_('memory.growth_mib', 33.0), MEMORY, '33.0 MiB more'),
        (set_('memory.growth_mib', None), MEMORY, 'too few'),
        (set_('memory.medians_of_starts_mib.1', 1000.0), MEMORY, 'start 1'),
        (set_('processes_left', ['python (7, S)']), LEFT, 'python (7, S)'),
        (set_('parts_left', ['.iter_9.pth.1.part']), LEFT, 'half a file'),
        (set_('checkpoints_left', list('abcd')), LEFT, 'a, b, c, d'),
    ],
)
def test_bad_news(change, name, word):
    record = good_record()
    change(record)
    checks = {check.name: check for check in judge(record)}
    assert not checks[name].passed
    assert word in checks[name].detail
    failed = {check.name for check in checks.values() if not check.passed}
    # More broken images than there are differ from the other run's, too.
    assert failed == {name}


def test_nothing_injected_is_no_success():
    record = good_record()
    record.faults, record.starts = [], record.starts[2:]
    assert [c.name for c in judge(record) if not c.passed] == [ENDED]


def test_a_start_that_ends_unasked():
    record = good_record()
    record.starts.insert(2, Start(2, 'iter_62.pth', first=62, last=70,
                                  told='iter_62.pth', told_step=62,
                                  codes=[1]))  # fmt: skip
    record.starts[3].number = 3
    checks = {check.name: check for check in judge(record)}
    assert 'start 2 ended with [1] unasked' in checks[ENDED].detail


def test_many_faults_are_counted():
    record = good_record()
    record.differences = list('abcdef')
    detail = {check.name: check for check in judge(record)}[LAST].detail
    assert detail == 'a; b; c; and 3 more'
