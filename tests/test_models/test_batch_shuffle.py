import pytest
import torch
import torch.distributed as dist
from ddp_helpers import run_ddp

from mmunimoco.models.batch_shuffle import ShufflePlan

CPU = torch.device('cpu')
DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.uint8,
    torch.int64,
    torch.bool,
]


def images_of(rank, count, dtype=torch.float32):
    generator = torch.Generator().manual_seed(100 + rank)
    images = torch.randint(0, 256, (count, 3, 4, 5), generator=generator)
    return images.to(dtype)


def count_bytes(sent):
    """Record how many bytes each all_to_all sends to other ranks."""
    original = dist.all_to_all_single

    def counted(output, input, receives, sends, **options):
        row = input[:1].numel() * input.element_size()
        sent.append([n * row for n in sends])
        return original(output, input, receives, sends, **options)

    dist.all_to_all_single = counted


def shuffle_on_rank(rank, world_size, sizes, seed, dtype=torch.float32):
    torch.manual_seed(seed + rank)  # ranks disagree: rank 0 decides
    sent = []
    count_bytes(sent)
    images = images_of(rank, sizes[rank], dtype)
    plan = ShufflePlan.draw(sizes[rank], images.device)
    shuffled = plan.shuffle(images)
    features = shuffled.flatten(1).double().requires_grad_()
    return dict(
        batch_sizes=plan.batch_sizes,
        permutation=plan.permutation,
        shuffled=shuffled,
        restored=plan.restore(shuffled),
        features=plan.restore(features),
        next_draw=torch.rand(()),
        sent=sent,
    )


def check(answers, sizes, dtype=torch.float32):
    """Compare with a shuffle of all images in one place."""
    per_rank = [images_of(r, n, dtype) for r, n in enumerate(sizes)]
    everything = torch.cat(per_rank)
    permutation = answers[0]['permutation']
    assert sorted(permutation.tolist()) == list(range(sum(sizes)))
    cuts = everything[permutation].split(sizes)
    for answer, images, cut in zip(answers, per_rank, cuts, strict=True):
        assert answer['batch_sizes'] == sizes
        assert torch.equal(answer['permutation'], permutation)
        assert answer['shuffled'].dtype == dtype
        assert torch.equal(answer['shuffled'], cut)
        assert torch.equal(answer['restored'], images)
        assert torch.equal(answer['features'], images.flatten(1).double())
        assert not answer['features'].requires_grad


@pytest.mark.parametrize('sizes', [[6], [5, 1], [3, 0], [1, 5, 2, 3]])
def test_shuffles_all_images_and_restores_each_exactly(sizes, tmp_path):
    answers = run_ddp(shuffle_on_rank, len(sizes), tmp_path, sizes, 3)
    check(answers, sizes)


def shuffle_every_dtype(rank, world_size, sizes):
    return [shuffle_on_rank(rank, world_size, sizes, 0, d) for d in DTYPES]


def test_any_dtype_travels(tmp_path):
    sizes = [3, 2]
    answers = run_ddp(shuffle_every_dtype, 2, tmp_path, sizes)
    for index, dtype in enumerate(DTYPES):
        check([of_rank[index] for of_rank in answers], sizes, dtype)


def draw_often(rank, world_size, seeds):
    found = []
    for seed in seeds:
        torch.manual_seed(seed + 7 * rank)
        plans = [ShufflePlan.draw(4, CPU) for _ in range(5)]
        found.append([plan.permutation.tolist() for plan in plans])
    return found


def test_permutations_follow_the_seed_of_rank_zero(tmp_path):
    ranks = run_ddp(draw_often, 2, tmp_path, [0, 0, 1])
    assert ranks[0] == ranks[1]
    first, again, other = ranks[0]
    assert len({tuple(p) for p in first}) == 5
    assert list(range(8)) not in first
    # Images really change ranks.
    assert any(i >= 4 for p in first for i in p[:4])
    assert again == first
    assert other != first
    # As one process with the seed of rank 0 draws them.
    torch.manual_seed(0)
    plans = [ShufflePlan.draw(8, CPU) for _ in range(5)]
    assert first == [plan.permutation.tolist() for plan in plans]


def test_a_restored_generator_gives_the_same_plan():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = ShufflePlan.draw(16, CPU).permutation
    after = torch.rand(())
    torch.set_rng_state(state)
    assert torch.equal(ShufflePlan.draw(16, CPU).permutation, first)
    # The size of the batch does not change what the run draws next.
    torch.set_rng_state(state)
    ShufflePlan.draw(3, CPU)
    assert torch.equal(torch.rand(()), after)


def test_every_place_is_equally_likely():
    torch.manual_seed(0)
    draws = 6000
    counts = torch.zeros(4, 4)
    for _ in range(draws):
        permutation = ShufflePlan.draw(4, CPU).permutation
        counts[torch.arange(4), permutation] += 1
    expected = draws / 4
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < 27.9  # 9 degrees of freedom, p = 0.001


def test_bytes_sent_by_a_rank_do_not_grow_with_the_ranks(tmp_path):
    size = 16
    row = images_of(0, 1).numel() * 4
    worst = {}
    for world_size in (2, 4):
        sizes = [size] * world_size
        answers = run_ddp(shuffle_on_rank, world_size, tmp_path, sizes, 0)
        for rank, answer in enumerate(answers):
            images, restored_images, features = answer['sent']
            # Every image leaves once, those that stay included.
            assert sum(images) == sum(restored_images) == size * row
            assert sum(features) == 2 * size * row  # doubles
            assert max(images) < size * row  # to no single rank
            others = sum(images) - images[rank]
            worst[world_size] = max(worst.get(world_size, 0), others)
    # What crosses the wire: at most the own batch, for any number of ranks;
    # an all_gather sends it to each of the others.
    all_gather = {w: (w - 1) * size * row for w in worst}
    assert worst[2] <= size * row and worst[4] <= size * row
    assert all_gather[4] == 3 * size * row >= 3 * worst[4]


def test_one_process_permutes_locally():
    torch.manual_seed(0)
    plan = ShufflePlan.draw(8, CPU)
    images = images_of(0, 8)
    shuffled = plan.shuffle(images)
    assert plan.batch_sizes == [8]
    assert torch.equal(shuffled, images[plan.permutation])
    assert not torch.equal(shuffled, images)
    assert torch.equal(plan.restore(shuffled), images)


def test_channels_last_is_kept():
    plan = ShufflePlan.draw(5, CPU)
    images = images_of(0, 5).to(memory_format=torch.channels_last)
    shuffled = plan.shuffle(images)
    assert shuffled.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(shuffled, images[plan.permutation])
    # An odd view is no reason to change the format.
    view = images_of(0, 10)[::2]
    assert plan.shuffle(view).is_contiguous()


def shuffle_channels_last(rank, world_size):
    images = images_of(rank, 4).to(memory_format=torch.channels_last)
    plan = ShufflePlan.draw(4, CPU)
    shuffled = plan.shuffle(images)
    return (
        plan.permutation,
        shuffled.is_contiguous(memory_format=torch.channels_last),
        shuffled,
        torch.equal(plan.restore(shuffled), images),
    )


def test_channels_last_is_kept_between_ranks(tmp_path):
    answers = run_ddp(shuffle_channels_last, 2, tmp_path)
    everything = torch.cat([images_of(0, 4), images_of(1, 4)])
    for rank, (permutation, kept, shuffled, restored) in enumerate(answers):
        cut = everything[permutation].split(4)[rank]
        assert kept and restored
        assert torch.equal(shuffled, cut)


def test_wrong_batch_is_named():
    plan = ShufflePlan.draw(4, CPU)
    with pytest.raises(ValueError, match='rank 0, but got 3'):
        plan.shuffle(torch.zeros(3, 2))
    with pytest.raises(ValueError, match='rank 0, but got 5'):
        plan.restore(torch.zeros(5, 2))


def test_no_gradient_flows():
    x = torch.randn(4, 2, requires_grad=True)
    plan = ShufflePlan.draw(4, CPU)
    assert not plan.shuffle(x).requires_grad
    assert not plan.restore(x).requires_grad
