import pytest
import torch

from losses.temporal import TemporalConsistencyLoss, TemporalDifferenceLoss
from sr_train.api.errors import CheckpointError
from tests.losses.test_every_loss import noise


def test_temporal_difference_frame_by_frame():
    pred, target = noise((6, 3, 5, 4)), noise((6, 3, 5, 4), 1)
    expected = []
    for clip in (0, 3):
        for t in (1, 2):
            change = pred[clip + t] - pred[clip + t - 1] - target[clip + t] + target[clip + t - 1]
            expected.append(change.abs().mean())
    value = TemporalDifferenceLoss()(pred, target, 3)
    torch.testing.assert_close(value, torch.stack(expected).mean())


def test_a_still_error_costs_nothing():
    target = noise((4, 3, 8, 8))
    assert TemporalDifferenceLoss()(target + 0.25, target, 4).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("loss", [TemporalDifferenceLoss(), TemporalConsistencyLoss(None, True)])
def test_single_frames_are_refused(loss):
    with pytest.raises(ValueError, match="at least 2, found 1"):
        loss(noise((4, 3, 8, 8)), noise((4, 3, 8, 8)), 1)


class MovesRight(torch.nn.Module):
    """Flow of an image that moves by three pixels to the right in each frame."""

    def forward(self, ref, supp):
        flow = ref.new_zeros(len(ref), 2, *ref.shape[-2:])
        flow[:, 0] = -3.0
        return flow


@pytest.fixture
def consistency():
    loss = TemporalConsistencyLoss(random_init=True)
    loss.flow = MovesRight()
    return loss


def clip_that_moves(count=3, seed=0):
    wide = noise((1, 3, 16, 20 + 3 * count), seed)
    return torch.cat([wide[..., 3 * (count - t) : 3 * (count - t) + 20] for t in range(count)])


def test_what_moves_with_the_target_is_consistent(consistency):
    target = clip_that_moves()
    moving = clip_that_moves(seed=1)
    inside = [x[..., 3:].contiguous() for x in (moving, target)]
    assert consistency(moving, target, 3) < 0.2 * consistency(noise(target.shape), target, 3)
    assert consistency(inside[1], inside[1], 3) < 0.05


def test_where_the_target_itself_does_not_follow_nothing_is_asked(consistency):
    target = clip_that_moves(2)
    pred = noise(target.shape, 5)
    before = consistency(pred, target, 2)
    target[1, :, :8] = 1 - target[1, :, :8].round()
    assert consistency(pred, target, 2) < 0.75 * before


def test_the_flow_network_stays_as_it_is():
    loss = TemporalConsistencyLoss(random_init=True)
    loss.train()
    assert not loss.flow.training
    assert not any(p.requires_grad for p in loss.parameters())


def test_missing_weights_are_told(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(CheckpointError, match=r"SpyNet: no weights at .*spynet_sintel_final"):
        TemporalConsistencyLoss()
