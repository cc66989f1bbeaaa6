"""One training step on toy models: accumulation, mixed precision, and the check of the losses."""

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from fakd.engine import StepTrainer


class Toy(nn.Module):
    """A linear model with two losses that are means over the batch; each image is a vector."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)
        self.calls = []

    def forward(self, batch):
        out = self.layer(torch.stack([x["image"] for x in batch]))
        self.calls.append((len(batch), out.dtype))
        return {"loss_square": (out.float() ** 2).mean(), "loss_first": out[:, 0].float().cos().mean()}


def batches(count, bad=None):
    """``count`` batches of four; in number ``bad`` the third image holds a NaN."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 4, 4, generator=generator)
    if bad is not None:
        images[bad, 2, 0] = torch.nan
    return [
        [{"image": x, "file_name": f"{i}-{j}.png"} for j, x in enumerate(b)] for i, b in enumerate(images)
    ]


def trained(data, **options):
    model = Toy()
    trainer = StepTrainer(model, data, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), **options)
    with EventStorage() as trainer.storage:
        for trainer.iter in range(len(data)):
            trainer.storage.iter = trainer.iter
            trainer.run_step()
    return trainer


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_give_the_update_and_the_losses_of_the_whole_batch(parts):
    whole, split = trained(batches(5)), trained(batches(5), accumulate=parts)
    assert [size for size, _ in split.model.calls] == [4 // parts] * parts * 5
    torch.testing.assert_close(split.model.layer.weight, whole.model.layer.weight)
    for name in ("loss_square", "loss_first", "total_loss"):
        assert split.storage.latest()[name][0] == pytest.approx(whole.storage.latest()[name][0], rel=1e-5)


def test_the_update_is_that_of_a_plain_loop():
    model = Toy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for batch in batches(5):
        optimizer.zero_grad()
        sum(model(batch).values()).backward()
        optimizer.step()
    assert torch.equal(trained(batches(5)).model.layer.weight, model.layer.weight)


def test_mixed_precision_computes_in_half_and_keeps_float_weights():
    half, full = trained(batches(5), amp_dtype=torch.bfloat16), trained(batches(5))
    assert {dtype for _, dtype in half.model.calls} == {torch.bfloat16}
    assert half.model.layer.weight.dtype == torch.float32
    assert not torch.equal(half.model.layer.weight, full.model.layer.weight)
    torch.testing.assert_close(half.model.layer.weight, full.model.layer.weight, atol=0.02, rtol=0)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_loss_that_is_not_finite_stops_before_the_update_and_saves_the_batch(tmp_path, parts):
    model = Toy()
    trainer = StepTrainer(
        model,
        batches(4, bad=2),
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        accumulate=parts,
        dump_dir=str(tmp_path),
    )
    with EventStorage(), pytest.raises(FloatingPointError) as error:
        for trainer.iter in range(4):
            trainer.run_step()
    message = str(error.value)
    assert "loss_square, loss_first became NaN or infinite at iteration 2" in message
    assert "nonfinite_batch.pth" in message and "SOLVER.BASE_LR" in message
    assert torch.equal(model.layer.weight, trained(batches(2), accumulate=parts).model.layer.weight)
    dump = torch.load(tmp_path / "nonfinite_batch.pth")
    assert dump["iteration"] == 2
    assert [x["file_name"] for x in dump["batch"]] == [f"2-{j}.png" for j in range(4)]
    assert dump["batch"][2]["image"].isnan().any()
    assert set(dump["losses"]) == {"loss_square", "loss_first"}


def test_only_the_guilty_loss_is_named():
    class Guilty(Toy):
        def forward(self, batch):
            return {**super().forward(batch), "loss_guilty": self.layer.weight.sum() * torch.inf}

    model = Guilty()
    trainer = StepTrainer(model, batches(1), torch.optim.SGD(model.parameters(), lr=0.1))
    with EventStorage(), pytest.raises(FloatingPointError, match=r"^loss_guilty became"):
        trainer.run_step()


def test_float16_scales_the_loss_and_the_scale_is_part_of_the_state():
    half, full = trained(batches(5), amp_dtype=torch.float16), trained(batches(5))
    torch.testing.assert_close(half.model.layer.weight, full.model.layer.weight, atol=0.01, rtol=0)
    half.grad_scaler.update(128.0)
    other = trained(batches(1), amp_dtype=torch.float16)
    other.load_state_dict(half.state_dict())
    assert other.grad_scaler.get_scale() == 128.0
