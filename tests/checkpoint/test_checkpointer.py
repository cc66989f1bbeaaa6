"""Saving, pruning, resuming from the newest undamaged file, and refusing to run code."""

import logging
import pickle
import resource

import pytest
import torch
from torch import nn

from fakd.checkpoint import Checkpointer, load_tensors


class Counter:
    """A part of a run's state."""

    def __init__(self, value=0):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


class Foreign:
    pass


def net(value):
    module = nn.Linear(3, 2)
    nn.init.constant_(module.weight, value)
    return module


def saved(folder, *values, keep=2):
    """A folder in which iteration i was saved with weights ``values[i]``."""
    model, counter = net(0), Counter()
    checkpointer = Checkpointer(model, str(folder), keep=keep, counter=counter)
    for i, value in enumerate(values):
        nn.init.constant_(model.weight, value)
        counter.value = i
        checkpointer.save(f"model_{i:07d}", iteration=i)
    return checkpointer


def resumed(folder):
    model, counter = net(-1), Counter(-1)
    Checkpointer(model, str(folder), counter=counter).resume_or_load("", resume=True)
    return model.weight[0, 0].item(), counter.value


def test_the_last_two_states_are_kept_and_the_newest_is_resumed(tmp_path):
    saved(tmp_path, 1.0, 2.0, 3.0)
    assert {p.name for p in tmp_path.iterdir()} == {
        "model_0000001.pth",
        "model_0000002.pth",
        "last_checkpoint",
    }
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"
    assert resumed(tmp_path) == (3.0, 2)


def test_keep_zero_keeps_all(tmp_path):
    assert len(saved(tmp_path, 1.0, 2.0, 3.0, keep=0).run_files()) == 3


def test_the_model_alone_is_no_checkpoint_to_resume_from(tmp_path):
    checkpointer = saved(tmp_path, 1.0)
    checkpointer.save_model("model_best", iteration=7)
    assert set(torch.load(tmp_path / "model_best.pth")) == {"model", "iteration"}
    assert resumed(tmp_path) == (1.0, 0)


def test_without_any_checkpoint_the_given_weights_are_loaded(tmp_path):
    model = net(5.0)
    torch.save({"model": net(6.0).state_dict()}, tmp_path / "init.pth")
    checkpointer = Checkpointer(model, str(tmp_path / "run"))
    assert not checkpointer.has_checkpoint()
    checkpointer.resume_or_load(str(tmp_path / "init.pth"), resume=True)
    assert model.weight[0, 0] == 6.0


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_names_both(tmp_path, caplog, damage):
    saved(tmp_path, 1.0, 2.0)
    newest = tmp_path / "model_0000001.pth"
    content = newest.read_bytes()
    weight = content.index(net(2.0).weight.detach().numpy().tobytes())
    damaged = {
        "cut": content[: len(content) // 2],
        "flip": content[:weight] + b"\x01" + content[weight + 1 :],
        "empty": b"",
        "text": b"not a checkpoint",
    }[damage]
    newest.write_bytes(damaged)
    with caplog.at_level(logging.WARNING, "fakd"):
        assert resumed(tmp_path) == (1.0, 0)
    assert "model_0000001.pth is damaged" in caplog.text and "model_0000000.pth" in caplog.text


def test_pruning_after_a_fallback_keeps_what_was_saved_and_not_what_is_damaged(tmp_path):
    saved(tmp_path, 1.0, 2.0, 3.0, 4.0, keep=0)
    for damaged in (2, 3):
        (tmp_path / f"model_000000{damaged}.pth").write_bytes(b"")
    checkpointer = Checkpointer(net(5.0), str(tmp_path), keep=1, counter=Counter(9))
    assert checkpointer.get_checkpoint_file().endswith("model_0000001.pth")
    checkpointer.save("model_0000002")  # in the place of a damaged file
    assert [path.name for path in checkpointer.run_files()] == ["model_0000002.pth"]
    assert resumed(tmp_path) == (5.0, 9)


def test_pruning_never_deletes_the_file_just_saved(tmp_path):
    saved(tmp_path, 1.0, 2.0, 3.0)
    checkpointer = Checkpointer(net(5.0), str(tmp_path), keep=1)  # that has not looked at the others
    checkpointer.save("model_0000000")
    assert [path.name for path in checkpointer.run_files()] == ["model_0000002.pth", "model_0000000.pth"]


def test_all_checkpoints_damaged_is_an_error_and_not_a_fresh_start(tmp_path):
    saved(tmp_path, 1.0)
    (tmp_path / "model_0000000.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="model_0000000.pth is damaged"):
        resumed(tmp_path)


def test_a_full_disk_names_the_file_and_keeps_the_last_checkpoint(tmp_path):
    checkpointer = saved(tmp_path, 1.0)
    checkpointer.add_checkpointable("large", nn.Linear(300, 300))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="cannot write .*model_0000001.pth': File too large"):
            checkpointer.save("model_0000001")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {p.name for p in tmp_path.iterdir()} == {"model_0000000.pth", "last_checkpoint"}
    assert resumed(tmp_path) == (1.0, 0)


def test_a_file_that_needs_code_is_refused_unless_allowed(tmp_path):
    path = str(tmp_path / "foreign.pth")
    torch.save({"model": net(4.0).state_dict(), "extra": Foreign()}, path)
    with pytest.raises(ValueError, match="Foreign.*CHECKPOINT.ALLOW_PICKLE True"):
        Checkpointer(net(0.0)).load(path)
    model = net(0.0)
    Checkpointer(model, allow_pickle=True).load(path)
    assert model.weight[0, 0] == 4.0


def test_a_python_pickle_is_refused_unless_allowed(tmp_path):
    path = tmp_path / "zoo.pkl"
    weights = {k: v.numpy() for k, v in net(4.0).state_dict().items()}
    path.write_bytes(pickle.dumps({"model": weights, "__author__": "somebody"}))
    with pytest.raises(ValueError, match="zoo.pkl.*CHECKPOINT.ALLOW_PICKLE True"):
        Checkpointer(net(0.0)).load(str(path))
    model = net(0.0)
    Checkpointer(model, allow_pickle=True).load(str(path))
    assert model.weight[0, 0] == 4.0


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 torn"])
def test_a_torn_weights_file_is_named(tmp_path, content):
    path = tmp_path / "torn.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="torn.pth"):
        load_tensors(str(path))


def test_a_truncated_weights_file_is_named(tmp_path):
    path = tmp_path / "model_final.pth"
    torch.save({"model": {"a": torch.zeros(40_000)}}, path)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(ValueError, match=r"model_final.pth' is damaged or no checkpoint"):
        load_tensors(str(path))


@pytest.mark.parametrize("wrap", [dict, lambda weights: {"model": weights}])
@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ({0: torch.zeros(2)}, "it has 0 where the name of a weight"),
        ({"a": torch.eye(2).to_sparse()}, "the weight 'a' is a sparse tensor"),
        ({"a": torch.zeros(2, device="meta")}, "the weight 'a' has no values"),
    ],
)
def test_weights_without_names_or_values_are_refused_by_the_file_s_name(tmp_path, weights, told, wrap):
    torch.save(wrap(weights), tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=f"odd.pth.*{told}"):
        load_tensors(str(tmp_path / "odd.pth"))


def test_a_flipped_bit_is_found_by_the_file_s_own_checksums(tmp_path):
    path = tmp_path / "flipped.pth"
    torch.save({"a": torch.zeros(1000)}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert torch.load(path)["a"].abs().sum() > 0  # torch alone does not mind
    with pytest.raises(ValueError, match=r"flipped.pth' is damaged.*checksums"):
        load_tensors(str(path))


def test_weights_of_another_network_are_an_error(tmp_path):
    torch.save({"model": nn.Conv2d(1, 1, 3).state_dict() | {"other": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="None of the 3 weights"):
        Checkpointer(net(0.0)).load(str(tmp_path / "other.pth"))
