"""Option rows: parsing, ranges, defaults, precedence, rounding, old spellings, errors that help."""

from __future__ import annotations

import pytest

from core.options import Option, OptionError, find, resolve, settle
from mainscripts.options import markdown
from models import MODELS
from models.common import check_archi, pick
from models.spec import upgrade

ROWS = MODELS["SAEHD"].rows


@pytest.mark.parametrize(
    ("text", "value"), [("y", True), ("YES", True), ("1", True), ("No", False), ("0", False), (True, True)]
)
def test_bool_answers(text: object, value: bool) -> None:
    assert find(ROWS, "clipgrad").parse(text) is value


@pytest.mark.parametrize(
    ("key", "given", "allowed"),
    [
        ("clipgrad", "maybe", "y or n"),
        ("resolution", "63", "a whole number from 64 to 640"),
        ("resolution", "641", "from 64 to 640"),
        ("resolution", "128.5", "a whole number"),
        ("resolution", "", "a whole number"),
        ("resolution", True, "a whole number"),
        ("batch_size", "0", "from 1"),
        ("autobackup_hour", "25", "from 0 to 24"),
        ("face_type", "full", "h / mf / f / wf / head"),
        ("archi", "df-x", "df or liae"),
        ("archi", "liae-", "df or liae"),
        ("lr_dropout", "gpu", "n / y / cpu"),
        ("ae_dims", "2049", "from 32 to 2048"),
        ("random_hsv_power", "0.31", "a number from 0 to 0.3"),
        ("gan_power", "10.5", "a number from 0 to 10"),
        ("gan_power", "nan", "a number from 0 to 10"),
        ("gan_patch_size", "2", "from 3 to 640"),
        ("gan_dims", "513", "from 4 to 512"),
        ("true_face_power", "-0.1", "a number from 0 to 1"),
        ("face_style_power", "101", "a number from 0 to 100"),
        ("bg_style_power", "much", "a number from 0 to 100"),
        ("ct_mode", "lab", "none / rct / lct / mkl / idt / sot"),
    ],
)
def test_wrong_values_say_what_is_allowed(key: str, given: object, allowed: str) -> None:
    with pytest.raises(OptionError, match=allowed) as error:
        find(ROWS, key).parse(given)
    assert key in str(error.value) and repr(given) in str(error.value)


def test_archi_is_lower_cased() -> None:
    assert check_archi(" DF-UDTC ") == "df-udtc"


@pytest.mark.parametrize(
    ("archi", "given", "expected"),
    [
        ("df", 140, 128),
        ("df", 144, 144),
        ("df-d", 144, 128),
        ("liae-t", 144, 128),
        ("liae-udt", 639, 608),
        ("df-u", 639, 624),
    ],
)
def test_resolution_is_rounded_by_architecture(archi: str, given: int, expected: int) -> None:
    assert resolve(ROWS, {"archi": archi, "resolution": given}, {}, {})["resolution"] == expected


def test_defaults_are_dfls() -> None:
    values = resolve(ROWS, {}, {}, {})
    shape = {"resolution": 128, "face_type": "f", "archi": "liae-ud"}
    dims = {"ae_dims": 256, "e_dims": 64, "d_dims": 64, "d_mask_dims": 22}
    assert {key: values[key] for key in shape | dims} == shape | dims
    assert values["masked_training"] and values["random_warp"] and values["adabelief"] and values["random_dst_flip"]
    assert not (values["eyes_mouth_prio"] or values["clipgrad"] or values["random_src_flip"])


def test_odd_dims_become_even() -> None:
    values = resolve(ROWS, {"e_dims": "33", "d_dims": 35, "d_mask_dims": 17}, {}, {})
    assert (values["e_dims"], values["d_dims"], values["d_mask_dims"]) == (34, 36, 18)


def test_mask_dims_follow_the_default_decoder_not_the_answer() -> None:
    assert resolve(ROWS, {"d_dims": 128}, {}, {})["d_mask_dims"] == 22
    assert resolve(ROWS, {}, {}, {"d_dims": 96})["d_mask_dims"] == 32


def test_precedence_given_stored_preferred_default() -> None:
    assert resolve(ROWS, {}, {}, {"batch_size": 6})["batch_size"] == 6
    assert resolve(ROWS, {}, {"batch_size": 5}, {"batch_size": 6})["batch_size"] == 5
    assert resolve(ROWS, {"batch_size": "7"}, {"batch_size": 5}, {"batch_size": 6})["batch_size"] == 7


def test_stored_shape_is_believed_and_cannot_be_changed() -> None:
    stored = {"ae_dims": 2500, "archi": "df-ud", "resolution": 672}
    values = resolve(ROWS, {}, stored, {})
    assert values["ae_dims"] == 2500 and values["resolution"] == 672
    assert resolve(ROWS, {"ae_dims": 2500}, stored, {})["ae_dims"] == 2500
    with pytest.raises(OptionError, match="made with 2500"):
        resolve(ROWS, {"ae_dims": 256}, stored, {})


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(OptionError) as names:
        resolve(ROWS, {"batchsize": "4", "zzz": "1", "batch_size": "8", "qqq": "1"}, {}, {})
    assert [line.split(" ")[0] for line in str(names.value).splitlines()] == ["'batchsize'", "'zzz'", "'qqq'"]
    assert str(names.value).count("Options are") == 1
    with pytest.raises(OptionError) as values:
        resolve(ROWS, {"batch_size": "0", "random_warp": "perhaps", "masked_training": "y"}, {}, {})
    assert [line.split(":")[0] for line in str(values.value).splitlines()] == ["batch_size", "random_warp"]


def test_unknown_option_suggests() -> None:
    with pytest.raises(OptionError, match="batch_size"):
        resolve(ROWS, {"batchsize": 4}, {}, {})


def test_old_spellings() -> None:
    old = {"lr_dropout": True, "eyes_mouth_prio": None, "random_flip": False}
    values = resolve(ROWS, {}, upgrade(old), {})
    assert values["lr_dropout"] == "y" and values["eyes_mouth_prio"] is False
    assert values["random_src_flip"] is False and values["random_dst_flip"] is False
    assert resolve(ROWS, {}, {"lr_dropout": False}, {})["lr_dropout"] == "n"


def test_numpy_numbers_become_plain() -> None:
    np = pytest.importorskip("numpy")
    values = resolve(ROWS, {}, upgrade({"batch_size": np.int64(6), "clipgrad": np.bool_(True)}), {})
    assert type(values["batch_size"]) is int and values["clipgrad"] is True


def test_forced_value_leaves_the_choice() -> None:
    rows = (
        Option("pretrain", "bool", "Pretrain", "", default=False),
        Option("warp", "bool", "Warp", "", default=True, forced=lambda a: False if a["pretrain"] else None),
    )
    values = settle(rows, {"pretrain": True, "warp": True})
    assert values["warp"] is False and values.chosen["warp"] is True and values.forced() == {"warp": False}


def test_every_row_has_a_helpful_text_and_a_parsable_default() -> None:
    values = resolve(ROWS, {}, {}, {})
    for row in ROWS:
        assert len(row.help) >= 30 and len(row.advice) > 20, row.key
        assert row.parse(row.show(values[row.key])) == values[row.key]
    assert markdown(ROWS).count("\n") == len(ROWS) + 2


def test_patch_size_follows_the_resolution_chosen() -> None:
    """DFL: an eighth of it; a stored one and the default options of an earlier model stay."""
    assert resolve(ROWS, {"resolution": 200, "archi": "df"}, {}, {})["gan_patch_size"] == 24
    assert resolve(ROWS, {"resolution": 256}, {}, {"gan_patch_size": 8})["gan_patch_size"] == 8
    assert resolve(ROWS, {}, {"resolution": 256, "gan_patch_size": 10}, {})["gan_patch_size"] == 10
    assert resolve(ROWS, {"resolution": 256, "gan_patch_size": 40}, {}, {})["gan_patch_size"] == 40


def test_true_face_is_for_df() -> None:
    assert resolve(ROWS, {"archi": "df-ud", "true_face_power": 0.01}, {}, {})["true_face_power"] == 0.01
    values = resolve(ROWS, {"archi": "liae-ud", "true_face_power": 0.01}, {}, {})
    assert values["true_face_power"] == 0.0 and values.chosen["true_face_power"] == 0.0


def test_pretraining_overrides_and_leaves_the_choices() -> None:
    choices = {
        "lr_dropout": "y", "random_warp": True, "gan_power": 0.1, "random_hsv_power": 0.05, "face_style_power": 10.0,
        "bg_style_power": 10.0, "uniform_yaw": False, "random_src_flip": False, "random_dst_flip": False,
        "ct_mode": "rct", "true_face_power": 0.01, "archi": "df",
    }  # fmt: skip
    values = resolve(ROWS, {**choices, "pretrain": True}, {}, {})
    assert values.forced() == {
        "lr_dropout": "n", "random_warp": False, "gan_power": 0.0, "random_hsv_power": 0.0, "face_style_power": 0.0,
        "bg_style_power": 0.0, "uniform_yaw": True, "random_src_flip": True, "random_dst_flip": True, "ct_mode": "none",
    }  # fmt: skip
    assert {key: values.chosen[key] for key in choices} == choices
    assert values["true_face_power"] == 0.01, "DFL: present in pretraining"
    assert resolve(ROWS, choices, {}, {}).forced() == {}


def test_picked_rows_keep_their_order_and_take_other_defaults() -> None:
    rows = pick("gan_power", "batch_size", batch_size=8)
    assert [row.key for row in rows] == ["gan_power", "batch_size"] and rows[1].default == 8
    with pytest.raises(KeyError):
        pick("gan_powder")


def test_a_key_may_have_other_names() -> None:
    from models.saehd import SAEHD

    assert SAEHD.resolve({"maximum_n_backups": "3"})["max_backups"] == 3
    with pytest.raises(OptionError, match="max_backups and maximum_n_backups are one option: got 1 and 2"):
        SAEHD.resolve({"max_backups": 1, "maximum_n_backups": 2})
    with pytest.raises(OptionError, match="Did you mean maximum_n_backups"):
        SAEHD.resolve({"maximum_n_backup": 1})
    assert SAEHD.resolve({"lr_dropout": "yes", "clipgrad": "off"})["lr_dropout"] == "y"
    stored = {"ae_dims": 3000}  # out of range, but of an existing model: as text, from a file, it is believed too
    assert SAEHD.resolve({"ae_dims": "3000"}, stored)["ae_dims"] == 3000
