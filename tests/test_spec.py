"""The library surface: resolve, build, load, save; what a changed option starts anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize("stem", ["encoder", "src_dst_opt"])
def test_parts_that_are_not_finite_are_refused(stem: str, tmp_path: Path) -> None:
    """Training on them can only lose more: what is not finite stays so."""
    parts = trained(tmp_path)
    path = ModelDir(tmp_path, "a", "SAEHD").part_path(stem)
    name = next(name for name in parts[stem] if "weight" in name)
    parts[stem][name].flat[0] = np.nan
    path.write_bytes(dflfile.dumps(parts[stem]))
    with pytest.raises(PartError, match=rf"^{path.name}: NaN or infinite .* {name}: .*restore.* --reinit {stem}\.$"):
        reopened(tmp_path)
    task = MODELS["SAEHD"].build(MODELS["SAEHD"].resolve(SMALL))
    assert f"{stem} starts anew" in " ".join(task.load(tmp_path, "a", reinit=[stem]))


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


def test_sides_of_unequal_size_are_refused() -> None:
    task = MODELS["SAEHD"].build(MODELS["SAEHD"].resolve(SMALL))
    with pytest.raises(ValueError, match="3 faces of src and 1 of dst"):
        task.step(Batch(src=batch(count=3).src, dst=batch(count=1).dst))
    assert task.iteration == 0


@pytest.mark.parametrize("stored", [{"resolution": 2**40}, {"ae_dims": -1}, {"archi": "foo"}])
def test_impossible_stored_shapes_are_named(stored: dict[str, object]) -> None:
    with pytest.raises(OptionError, match=f"Stored with the model: {next(iter(stored))}"):
        MODELS["SAEHD"].resolve({}, stored={**SMALL, **stored})


@pytest.mark.parametrize(
    ("key", "stored", "used"),
    [
        ("batch_size", 0, 1), ("target_iter", None, 0), ("gan_power", 50, 10.0), ("random_hsv_power", 1.5, 0.3),
        ("true_face_power", float("nan"), 0.0), ("ct_mode", "fs-aug", "none"), ("gan_patch_size", "huge", 8),
    ],
)  # fmt: skip
def test_stored_settings_that_are_not_allowed_here_become_the_nearest_that_is(
    key: str, stored: object, used: object
) -> None:
    """A fork's model must not be locked out; it is told, unless a value is given anyway."""
    spec = MODELS["SAEHD"]
    for source, values in (
        ("Stored with the model", spec.resolve({}, stored={**SMALL, key: stored})),
        ("In default_options.dat", spec.resolve({"resolution": 64}, preferred={key: stored})),
    ):
        assert values[key] == used
        assert len(values.notes) == 1 and values.notes[0].startswith(f"{source}: {key}: got ")
    given = spec.resolve({key: used}, stored={**SMALL, key: stored})
    assert given[key] == used and given.notes == []


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


def trained(folder: Path, seed: int = 1, **options: object) -> dict[str, dict[str, np.ndarray]]:
    """A model `a` of one iteration in `folder`; returns its parts."""
    spec = MODELS["SAEHD"]
    task = spec.build(spec.resolve({**SMALL, **options}), seed=seed)
    task.step(batch())
    task.save(folder, "a")
    return task.parts()


def reopened(folder: Path, **changes: object) -> tuple[Any, list[str]]:
    """Model `a` of `folder` in a task of another seed, with some options changed."""
    spec = MODELS["SAEHD"]
    task = spec.build(spec.resolve(changes, stored=ModelDir(folder, "a", "SAEHD").read_data().options), seed=77)
    return task, task.load(folder, "a")


def same(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(array, two[name]) for name, array in one.items())


@pytest.mark.parametrize(("archi", "fresh"), [("df", {"inter"}), ("liae-u", {"inter_AB", "inter_B"})])
def test_after_pretraining_iterations_and_inters_start_anew(tmp_path: Path, archi: str, fresh: set[str]) -> None:
    before = trained(tmp_path, archi=archi, pretrain=True)
    still, notes = reopened(tmp_path)
    assert notes == [] and still.iteration == 1 and same(before["encoder"], still.parts()["encoder"])
    task, notes = reopened(tmp_path, pretrain=False)
    assert task.iteration == 0 and len(task.data.loss_history) == 0 and task.data.sample_for_preview is None
    after = task.parts()
    assert {stem for stem in before if not same(before[stem], after[stem])} == fresh
    assert int(after["src_dst_opt"]["iters:0"]) == 1, "DFL keeps the optimizer"
    text = " ".join(notes)
    assert all(f"{stem} starts anew after pretraining" in text for stem in fresh) and "from 0 again" in text
    task.step(batch())
    task.save(tmp_path, "a")
    again, notes = reopened(tmp_path)
    assert notes == [] and again.iteration == 1 and again.values["pretrain"] is False


@pytest.mark.parametrize("change", [{"gan_dims": 8}, {"gan_patch_size": 16}])
def test_another_gan_size_starts_the_gan_anew_and_nothing_else(tmp_path: Path, change: dict[str, int]) -> None:
    gan = {"gan_power": 0.1, "gan_dims": 4, "gan_patch_size": 8}
    before = trained(tmp_path, true_face_power=0.01, **gan)
    task, notes = reopened(tmp_path, **change)
    after = task.parts()
    assert all(same(part, after[stem]) for stem, part in before.items() if stem not in ("GAN", "GAN_opt"))
    assert int(after["GAN_opt"]["iters:0"]) == 0 and int(after["D_code_opt"]["iters:0"]) == 1
    assert any("GAN starts anew" in note and str(next(iter(change.values()))) in note for note in notes)
    task.step(batch())
    task.save(tmp_path, "a")
    again, notes = reopened(tmp_path)
    assert notes == [] and same(task.parts()["GAN"], again.parts()["GAN"])


def test_a_gan_switched_on_is_fresh_and_says_so_and_off_is_left_alone(tmp_path: Path) -> None:
    trained(tmp_path)
    task, notes = reopened(tmp_path, gan_power=0.1, gan_dims=4)
    assert len(notes) == 1 and "GAN, GAN_opt" in notes[0]
    task.step(batch())
    task.save(tmp_path, "a")
    stored = (tmp_path / "a_SAEHD_GAN.npy").read_bytes()
    off, notes = reopened(tmp_path, gan_power=0)
    assert notes == [] and "GAN" not in off.parts()
    off.step(batch())
    off.save(tmp_path, "a")
    assert (tmp_path / "a_SAEHD_GAN.npy").read_bytes() == stored
    on, notes = reopened(tmp_path, gan_power=0.2)
    assert notes == [] and int(on.parts()["GAN_opt"]["iters:0"]) == 1


@pytest.mark.parametrize("between", [{"gan_power": 0}, {"pretrain": True}])
def test_a_gan_size_changed_while_the_gan_rests(tmp_path: Path, between: dict[str, object]) -> None:
    trained(tmp_path, gan_power=0.1, gan_dims=4, gan_patch_size=8)
    task, _ = reopened(tmp_path, gan_patch_size=16, **between)
    task.step(batch())
    task.save(tmp_path, "a")
    again, notes = reopened(tmp_path, gan_power=0.1, pretrain=False)
    assert sum("the GAN starts anew" in note for note in notes) == 1 and "GAN_opt" in " ".join(notes)
    again.step(batch())
    again.save(tmp_path, "a")
    assert reopened(tmp_path)[1] == [] and int(again.parts()["GAN_opt"]["iters:0"]) == 1


def test_a_gan_of_another_size_without_a_record_starts_anew(tmp_path: Path) -> None:
    trained(tmp_path, gan_power=0.1, gan_dims=4)
    (tmp_path / "a_SAEHD_data.dat").unlink()
    spec = MODELS["SAEHD"]
    task = spec.build(spec.resolve({**SMALL, "gan_power": 0.1, "gan_dims": 8}))
    notes = task.load(tmp_path, "a")
    assert any("GAN.npy: convs_0" in note and "the GAN starts anew" in note for note in notes)
    fits = spec.build(spec.resolve({**SMALL, "gan_power": 0.1, "gan_dims": 4}), seed=5)
    notes = fits.load(tmp_path, "a", reinit=["GAN"])
    assert "GAN starts anew" in " ".join(notes) and int(fits.parts()["GAN_opt"]["iters:0"]) == 0


def test_nothing_is_saved_over_a_pretrained_model_before_its_first_iteration(tmp_path: Path) -> None:
    """A record of iteration 0 would have every program take the model for a new one."""
    trained(tmp_path, pretrain=True)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    task, _ = reopened(tmp_path, pretrain=False)
    with pytest.raises(ModelError, match="one iteration"):
        task.save(tmp_path, "a")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_task_that_only_draws(tmp_path: Path) -> None:
    parts = trained(tmp_path, gan_power=0.1, gan_dims=4)
    spec = MODELS["SAEHD"]
    stored = ModelDir(tmp_path, "a", "SAEHD").read_data().options
    task = spec.build(spec.resolve({}, stored=stored), training=False)
    for stem in ("src_dst_opt", "GAN", "GAN_opt"):
        (tmp_path / f"a_SAEHD_{stem}.npy").write_bytes(b"never read")
    assert task.load(tmp_path, "a") == [] and task.iteration == 1
    assert all(same(parts[stem], part) for stem, part in task.parts().items()) and "GAN" not in task.parts()
    assert task.swap(batch().dst.target).face.shape == (2, 3, 64, 64)
    with pytest.raises(RuntimeError, match="training=False"):
        task.step(batch())
    assert task.iteration == 1
