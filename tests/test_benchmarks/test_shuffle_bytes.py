from benchmarks.shuffle_bytes import measure_shuffle_bytes, shuffle_bytes_table


def test_all_to_all_sends_no_more_on_more_processes():
    """All but the images that stay, which are one in W on average."""
    batch_size, image_shape = 16, (3, 4, 5)
    sent = measure_shuffle_bytes((2, 4, 8), batch_size, image_shape)
    print(shuffle_bytes_table(sent))
    batch = batch_size * 3 * 4 * 5 * 4
    assert list(sent) == [2, 4, 8]
    for world_size, counts in sent.items():
        assert counts['all_gather'] == (world_size - 1) * batch
        assert 0 < counts['all_to_all'] <= batch
        # Of 32, 64 and 128 images; five standard deviations are less.
        share = counts['all_to_all'] / batch
        assert abs(share - (1 - 1 / world_size)) < 0.25


def test_table():
    sent = {
        1: dict(all_to_all=0.0, all_gather=0.0),
        8: dict(all_to_all=100.0, all_gather=720.0),
    }
    *_, alone, eight = shuffle_bytes_table(sent).splitlines()
    assert alone == '| 1 | 0 | 0 | - |'
    assert eight == '| 8 | 100 | 720 | 7.2 |'
