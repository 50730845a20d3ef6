"""The library surface: resolve, build, load, save; options this version does not act on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core import dflfile
from core.batch import ARRAYS, Batch, Side
from core.modeldir import ModelDir, ModelError
from core.options import OptionError
from models import MODELS, PartError

SMALL = {
    "resolution": 64, "archi": "df-ud", "ae_dims": 32, "e_dims": 16, "d_dims": 16, "d_mask_dims": 16, "batch_size": 2,
}  # fmt: skip


def batch(resolution: int = 64, count: int = 2) -> Batch:
    rng = np.random.default_rng(0)

    def side() -> Side:
        return Side(**{n: rng.random((count, c, resolution, resolution), np.float32) for n, c in ARRAYS.items()})

    return Batch(src=side(), dst=side())


@pytest.mark.parametrize("spec", MODELS.values(), ids=MODELS.keys())
def test_options_for_later_are_taken_only_when_off(spec) -> None:  # type: ignore[no-untyped-def]
    off = {key: value for key, value in spec.inactive.items() if value is not None}
    assert spec.resolve({**SMALL, **off, "gan_dims": 16})["resolution"] == 64
    with pytest.raises(OptionError, match=r"gan_power: got 0\.1"):
        spec.resolve({"gan_power": 0.1})
    notes = spec.not_active({"gan_power": 0.1, "ct_mode": "rct", "pretrain": False})
    assert len(notes) == 1 and "gan_power 0.1, ct_mode rct" in notes[0] and "pretrain" not in notes[0]


def test_step_save_load_step_is_the_same_as_not_stopping(tmp_path: Path) -> None:
    spec = MODELS["SAEHD"]
    values = spec.resolve(SMALL)
    one = spec.build(values, seed=3)
    for _ in range(2):
        losses = one.step(batch())
    assert float(losses["src_loss"]) > 0 and one.iteration == 2
    one.save(tmp_path, "a")
    two = spec.build(spec.resolve({}, stored=ModelDir(tmp_path, "a", "SAEHD").read_data().options), seed=99)
    assert two.load(tmp_path, "a") == [] and two.iteration == 2 and len(two.data.loss_history) == 2
    for key in losses:
        assert float(one.step(batch())[key]) == float(two.step(batch())[key])
    one_parts, two_parts = one.parts(), two.parts()
    for stem, part in one_parts.items():
        for name, array in part.items():
            assert (array == two_parts[stem][name]).all(), (stem, name)


def test_a_genuine_dfl_model_trains_on_and_keeps_its_keys(shared: Path, tmp_path: Path) -> None:
    folder, name, spec = shared / "golden" / "genuine_saehd_df", "saehd-df-64-rmsprop", MODELS["SAEHD"]
    genuine = ModelDir(folder, name, "SAEHD")
    task = spec.build(spec.resolve({}, stored=genuine.read_data().options))
    assert task.load(folder, name) == []
    assert task.iteration == 6
    assert np.isfinite(float(task.step(batch(count=4))["src_loss"]))
    task.save(tmp_path, name)
    for path in genuine.files():
        if path.suffix == ".npy":
            before, after = dflfile.load(path), dflfile.load(tmp_path / path.name)
            assert {k: (np.shape(v), v.dtype) for k, v in before.items()} == {
                k: (np.shape(v), v.dtype) for k, v in after.items()
            }
    before, after = dflfile.load(genuine.data_path), dflfile.load(tmp_path / genuine.data_path.name)
    assert after["iter"] == 7 and len(after["loss_history"]) == 7 and before.keys() == after.keys()
    assert before["options"] == after["options"]


def test_parts_that_do_not_fit_are_refused_whole(tmp_path: Path) -> None:
    spec = MODELS["SAEHD"]
    small = spec.build(spec.resolve(SMALL))
    small.step(batch())
    small.save(tmp_path, "a")
    wide = spec.build(spec.resolve({**SMALL, "d_dims": 18}))
    before = wide.parts()
    with pytest.raises(PartError, match=r"decoder_src.*upscale0"):
        wide.load(tmp_path, "a")
    after = wide.parts()
    assert all((before[s][n] == after[s][n]).all() for s in before for n in before[s])
    (tmp_path / "a_SAEHD_inter.npy").unlink()
    with pytest.raises(ModelError, match="--reinit inter"):
        small.load(tmp_path, "a")
    assert "inter starts anew" in " ".join(small.load(tmp_path, "a", reinit=["inter"]))


def test_optimizer_files_that_are_absent_or_of_the_other_kind(tmp_path: Path) -> None:
    spec = MODELS["SAEHD"]
    task = spec.build(spec.resolve(SMALL))
    task.step(batch())
    task.save(tmp_path, "a")
    other = spec.build(spec.resolve({**SMALL, "adabelief": False}))
    notes = " ".join(other.load(tmp_path, "a"))
    assert "RMSprop" in notes or "AdaBelief" in notes
    assert int(other.parts()["src_dst_opt"]["iters:0"]) == 1
    (tmp_path / "a_SAEHD_src_dst_opt.npy").unlink()
    assert len(task.load(tmp_path, "a")) == 1


def test_weights_without_their_record(tmp_path: Path) -> None:
    spec = MODELS["SAEHD"]
    task = spec.build(spec.resolve(SMALL), seed=1)
    task.step(batch())
    task.save(tmp_path, "a")
    (tmp_path / "a_SAEHD_data.dat").unlink()
    (tmp_path / "a_SAEHD_src_dst_opt.npy").unlink()
    other = spec.build(spec.resolve(SMALL), seed=2)
    assert "counting from iteration 0" in " ".join(other.load(tmp_path, "a")) and other.iteration == 0
    assert (other.parts()["inter"]["dense1/weight:0"] == task.parts()["inter"]["dense1/weight:0"]).all()


def test_precision_that_is_not_offered() -> None:
    spec = MODELS["SAEHD"]
    with pytest.raises(OptionError, match="allowed is full"):
        spec.build(spec.resolve(SMALL), precision="half")


def test_off_may_be_said_in_any_spelling_and_is_stored() -> None:
    spec = MODELS["SAEHD"]
    values = spec.resolve({**SMALL, "gan_power": "0", "pretrain": "n", "ct_mode": "none"}, stored={})
    assert (values.chosen["gan_power"], values.chosen["pretrain"], values.chosen["ct_mode"]) == (0.0, False, "none")
    with pytest.raises(OptionError, match="ct_mode"):
        spec.resolve({"ct_mode": "rct"})


def test_sides_of_unequal_size_are_refused() -> None:
    task = MODELS["SAEHD"].build(MODELS["SAEHD"].resolve(SMALL))
    with pytest.raises(ValueError, match="3 faces of src and 1 of dst"):
        task.step(Batch(src=batch(count=3).src, dst=batch(count=1).dst))
    assert task.iteration == 0


@pytest.mark.parametrize(
    "stored", [{"batch_size": 0}, {"resolution": 2**40}, {"ae_dims": -1}, {"archi": "foo"}, {"target_iter": None}]
)
def test_impossible_stored_values_are_named(stored: dict[str, object]) -> None:
    with pytest.raises(OptionError, match=f"Stored with the model: {next(iter(stored))}"):
        MODELS["SAEHD"].resolve({}, stored={**SMALL, **stored})


def test_foreign_options_of_any_kind_are_kept() -> None:
    assert MODELS["SAEHD"].resolve({}, stored={**SMALL, "fork": np.arange(3)})["resolution"] == 64


def test_reinit_starts_a_part_anew_that_is_there(tmp_path: Path) -> None:
    spec = MODELS["SAEHD"]
    task = spec.build(spec.resolve(SMALL), seed=1)
    task.step(batch())
    task.save(tmp_path, "a")
    other = spec.build(spec.resolve(SMALL), seed=2)
    fresh = other.parts()
    assert "inter starts anew" in " ".join(other.load(tmp_path, "a", reinit=["inter"]))
    assert (other.parts()["inter"]["dense1/weight:0"] == fresh["inter"]["dense1/weight:0"]).all()
    assert (other.parts()["encoder"]["down1/downs_0/conv1/weight:0"] != 0).any()
