"""Training steps on a device: exact, in mixed precision, restored."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.runner import load_checkpoint, save_checkpoint
from small_unimoco import (
    MOMENTUM,
    SGD,
    TEMPERATURE,
    Encoder,
    build_unimoco,
    data_samples,
    draw_batches,
    train_step,
    trained_parameters,
)

from benchmarks.published import PublishedUniMoCo
from mmunimoco.engine import StepOptionsHook


def optimizer_of(model):
    return torch.optim.SGD(trained_parameters(model), **SGD)


def build_wrapper(model, dtype, loss_scale='dynamic'):
    """As mmpretrain's ``tools/train.py`` builds it, without or with --amp."""
    if dtype == 'float32':
        wrapper = dict(type='OptimWrapper')
    else:
        wrapper = dict(
            type='AmpOptimWrapper', dtype=dtype, loss_scale=loss_scale
        )
    wrapper['optimizer'] = dict(type='SGD', **SGD)
    return build_optim_wrapper(model, wrapper)


def wrapper_step(model, wrapper, views, labels):
    """One step as in mmengine's training loop."""
    device = next(model.parameters()).device
    views = [view.to(device) for view in views]
    data = dict(inputs=views, data_samples=data_samples(labels))
    return model.train_step(data, wrapper)


def test_24_steps_equal_the_published_algorithm(device):
    """In float64, the published step on the CPU."""
    model = build_unimoco().double()
    published = PublishedUniMoCo(
        deepcopy(Encoder(model)),
        model.head.queue.T,
        SGD,
        momentum=1 - MOMENTUM,
        temperature=TEMPERATURE,
    )
    model = model.to(device)
    optimizer = optimizer_of(model)
    for views, labels in draw_batches(24, dtype=torch.float64):
        wanted = published.step(*views, labels)
        loss = train_step(model, optimizer, views, labels)
        assert loss == pytest.approx(wanted, rel=1e-7)
    model = model.cpu()
    torch.testing.assert_close(
        model.head.queue, published.head.queue.T, rtol=1e-6, atol=1e-6
    )
    assert torch.equal(model.head.label_queue, published.head.label_queue)
    for value, wanted in zip(
        Encoder(model).parameters(),
        published.encoder_q.parameters(),
        strict=True,
    ):
        torch.testing.assert_close(value, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('dtype', ['float32', 'float16', 'bfloat16'])
def test_wrapper_follows_float64(dtype, device, record_property):
    """Ten steps: every loss is near that of float64 on the CPU."""
    if device.type == 'cpu' and dtype != 'float32':
        pytest.skip('AmpOptimWrapper needs an accelerator')
    tolerance = dict(float32=1e-4, float16=5e-3, bfloat16=2e-2)[dtype]
    exact = build_unimoco().double()
    optimizer = optimizer_of(exact)
    model = build_unimoco().to(device)
    # No step overflows, and float16 gradients do not vanish.
    wrapper = build_wrapper(model, dtype, dict(init_scale=2.0**10))
    before = deepcopy(model.state_dict())
    losses = []
    for views, labels in draw_batches(10, n=32):
        doubles = [view.double() for view in views]
        wanted = train_step(exact, optimizer, doubles, labels)
        log = wrapper_step(model, wrapper, views, labels)
        assert all(value.isfinite() for value in log.values())
        losses.append((log['loss'].item(), wanted))
    worst = max(abs(loss / wanted - 1) for loss, wanted in losses)
    record_property('value_error', f'{worst:.2e}')
    assert worst < tolerance, losses
    for name, value in model.state_dict().items():
        assert value.isfinite().all(), name
        assert value.dtype == before[name].dtype, name
    for name, parameter in model.backbone.named_parameters():
        assert not torch.equal(parameter, before[f'backbone.{name}']), name


@pytest.mark.gpu
def test_cuda_graphs_train_the_same():
    """Also over the step in which the graphs are recorded."""
    plain, losses = build_unimoco().cuda(), []
    graphs = deepcopy(plain)
    runner = SimpleNamespace(model=graphs)
    hook = StepOptionsHook(compile='cuda-graphs')
    hook.before_run(runner)
    wrappers = [build_wrapper(m, 'float32') for m in (plain, graphs)]
    for views, labels in draw_batches(8, n=32):
        hook.before_train_iter(runner, 0)
        losses.append(
            [
                wrapper_step(model, wrapper, views, labels)['loss'].item()
                for model, wrapper in zip(
                    (plain, graphs), wrappers, strict=True
                )
            ]
        )
    for wanted, loss in losses:
        assert loss == pytest.approx(wanted, rel=1e-3), losses


@pytest.mark.gpu
def test_grad_scaler_skips_a_step_that_overflows():
    ((views, labels),) = draw_batches(1)
    model = build_unimoco().cuda()
    # Every float16 gradient overflows at this scale.
    scale = 2.0**60
    wrapper = build_wrapper(model, 'float16', dict(init_scale=scale))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    log = wrapper_step(model, wrapper, views, labels)
    assert log['loss'].isfinite()
    for name, parameter in model.named_parameters():
        if not name.startswith('encoder_k'):
            assert torch.equal(parameter, before[name]), name
    assert wrapper.loss_scaler.get_scale() == scale / 2
    # The keys do not depend on the gradient.
    assert model.head.queue.isfinite().all()
    assert model.head.queue_ptr.tolist() == [len(labels)]


def test_checkpoint_resumes_on_the_cpu(device, tmp_path):
    """Saved by mmengine; the next loss is the same on the CPU."""
    model = build_unimoco(exclude_own_keys=True).double().to(device)
    optimizer = optimizer_of(model)
    *first, last = draw_batches(5, dtype=torch.float64)
    for views, labels in first:
        train_step(model, optimizer, views, labels)
    path = str(tmp_path / 'epoch_1.pth')
    wrapper = OptimWrapper(optimizer)
    save_checkpoint(
        dict(state_dict=model.state_dict(), optimizer=wrapper.state_dict()),
        path,
    )
    other = build_unimoco(exclude_own_keys=True).double()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    checkpoint = load_checkpoint(other, path, map_location='cpu', strict=True)
    for name, value in model.state_dict().items():
        restored = other.state_dict()[name]
        assert restored.device.type == 'cpu'
        assert torch.equal(restored, value.cpu()), name
    other_optimizer = optimizer_of(other)
    other_optimizer.load_state_dict(checkpoint['optimizer'])
    for _ in range(2):
        wanted = train_step(model, optimizer, *last)
        loss = train_step(other, other_optimizer, *last)
        assert loss == pytest.approx(wanted, rel=1e-7)
    assert other.encoder_k.steps.item() == model.encoder_k.steps.item() == 6
    assert torch.equal(other.head.label_queue, model.head.label_queue.cpu())
    assert torch.equal(other.head.index_queue, model.head.index_queue.cpu())
