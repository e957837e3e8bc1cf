"""Fine-tuning in INT8: gradients pass the rounding, and the outlier model gets most of its answers back."""

import numpy as np
import pytest
import torch
from logoformer.calibration.equalise import with_weights
from logoformer.calibration.qat import QatConfig, augmented, fine_tune, round_through
from logoformer.calibration.quantize import QuantizeConfig, quantize_graph
from logoformer.errors import BadInputError, UsageError
from logoformer.export.reference import Reference


def test_rounding_is_int8_and_gradients_pass_it():
    x = torch.tensor([0.04, 0.11, -0.26, 20.0, -20.0]).requires_grad_()
    scale = torch.tensor(0.1).requires_grad_()
    y = round_through(x, scale)
    torch.testing.assert_close(y.detach(), torch.tensor([0.0, 0.1, -0.3, 12.7, -12.8]))
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0], "what is clipped has no gradient"
    # LSQ: the rounding error inside the range, the last level outside it.
    assert float(scale.grad) == pytest.approx((0 - 0.4) + (1 - 1.1) + (-3 + 2.6) + 127 - 128, abs=1e-4)


def test_batches_are_seeded_and_go_round(planted):
    config = QatConfig(steps=3, batch=5)
    seen = []

    def read(index, rng):
        seen.append(index)
        return planted.clips[index]

    first = list(augmented(read, 7, config))
    again = list(augmented(lambda i, rng: planted.clips[i], 7, config))
    assert [clips.shape[0] for clips in first] == [5, 5, 5] and sorted(seen[:7]) == list(range(7))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    with pytest.raises(UsageError):
        QatConfig(steps=0)


def tuned(planted, config):
    program = Reference(planted.fp32)
    batches = augmented(lambda i, rng: planted.calibration[i], len(planted.calibration), config)
    return fine_tune(planted.fp32, program, planted.ranges, QuantizeConfig(), batches, planted.calibration[:14], config)


def test_it_recovers_half_of_the_lost_agreement_at_least(planted):
    done = tuned(planted, QatConfig(steps=24, batch=12))
    lost = planted.compared(planted.quantize())
    graphs = [with_weights(graph, done.weights) for graph in (planted.fp32, planted.fp16)]
    mended = planted.compared(quantize_graph(*graphs, done.ranges, QuantizeConfig()))
    print(
        f"agreement {lost.agreement:.3f} -> {mended.agreement:.3f}, harm {lost.rms_share:.2f} -> {mended.rms_share:.2f}"
    )
    assert done.after < 0.5 * done.before and done.kept_step > 0
    assert mended.agreement - lost.agreement >= 0.5 * (1.0 - lost.agreement)
    assert set(done.ranges) == set(planted.ranges)


def test_the_forward_pass_is_the_quantized_graph(planted):
    """At step 1 nothing is learned yet: the loss is the divergence of the INT8 graph that is shipped."""
    config = QatConfig(steps=1, batch=8)
    (clips,) = augmented(lambda i, rng: planted.calibration[i], len(planted.calibration), config)
    program = Reference(planted.fp32)
    done = fine_tune(planted.fp32, program, planted.ranges, QuantizeConfig(), [clips], clips, config)
    given, wanted = (
        Reference(graph).run_many({"clip": clips[:, None]})[0]["probabilities"].astype(np.float64)
        for graph in (planted.quantize(), planted.fp32)
    )
    divergence = float((wanted * np.log(wanted / given)).sum() / len(clips))
    assert done.losses[0] == done.before == pytest.approx(divergence, rel=0.05)


def test_steps_that_only_harm_are_not_kept(planted):
    done = tuned(planted, QatConfig(steps=2, batch=2, learning_rate=0.3))
    assert done.kept_step == 0 and done.after == done.before
    weights = Reference(planted.fp32).weights
    assert all((value == weights[name].numpy()).all() for name, value in done.weights.items())
    assert dict(done.ranges) == pytest.approx(dict(planted.ranges))


def test_a_loss_that_is_not_finite_ends_it(planted):
    with pytest.raises(BadInputError, match="learning rate"):
        tuned(planted, QatConfig(steps=6, batch=2, learning_rate=1e30))
