"""Key images that travel while the queries are computed."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from ddp_helpers import run_ddp
from small_unimoco import build_unimoco, data_samples, draw_batches

from mmunimoco.models.batch_shuffle import ShufflePlan

SIZES = [4, 1]


def _shuffle_both_ways(rank, world_size, dtype, channels_last):
    torch.manual_seed(rank)
    images = torch.randn(SIZES[rank], 3, 4, 5).to(dtype)
    if channels_last:
        images = images.to(memory_format=torch.channels_last)
    plan = ShufflePlan.draw(len(images), images.device)
    arrive = plan.start_shuffle(images)
    # Another collective meanwhile, as those of a query encoder.
    total = torch.ones(())
    dist.all_reduce(total)
    arrived, wanted = arrive(), plan.shuffle(images)
    return torch.equal(arrived, wanted), arrived.stride() == wanted.stride()


@pytest.mark.parametrize(
    ('dtype', 'channels_last'),
    [(torch.float32, False), (torch.bfloat16, True)],
)
def test_same_images_as_without_overlap(dtype, channels_last, tmp_path):
    arguments = (dtype, channels_last)
    for answer in run_ddp(_shuffle_both_ways, 2, tmp_path, *arguments):
        assert answer == (True, True)


def test_one_process():
    images = torch.randn(4, 3, 4, 5)
    plan = ShufflePlan.draw(4, images.device)
    assert torch.equal(plan.start_shuffle(images)(), plan.shuffle(images))
    with pytest.raises(ValueError, match='4 images of rank 0, but got 3'):
        plan.start_shuffle(images[:3])


def _order_of_a_step(rank, world_size):
    """What happens when, and what a step without overlap would return."""
    events, original = [], dist.all_to_all_single
    model = build_unimoco()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    ((views, labels),) = draw_batches(1, n=4)
    views, samples = [v + rank for v in views], data_samples(labels)

    def sent(*args, async_op=False):
        events.append('in background' if async_op else 'waited for')
        work = original(*args, async_op=async_op)
        if not async_op:
            return work

        def wait():
            events.append('arrived')
            work.wait()

        return SimpleNamespace(wait=wait)

    dist.all_to_all_single = sent
    for name in ('backbone', 'encoder_k'):
        getattr(model, name).register_forward_pre_hook(
            lambda *_, name=name: events.append(name)
        )
    torch.manual_seed(1)
    loss = model.loss(views, samples)['loss'].item()
    queue = model.head.queue.clone()

    model.load_state_dict(state)
    start = ShufflePlan.start_shuffle
    ShufflePlan.start_shuffle = lambda plan, x: start(plan, x, False)
    torch.manual_seed(1)
    plain = model.loss(views, samples)['loss'].item()
    return events[:5], loss == plain, torch.equal(model.head.queue, queue)


def test_images_leave_before_the_queries_are_computed(tmp_path):
    order = ['in background', 'backbone', 'arrived', 'encoder_k', 'waited for']
    for answer in run_ddp(_order_of_a_step, 2, tmp_path):
        assert answer == (order, True, True)
