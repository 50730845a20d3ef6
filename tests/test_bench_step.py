"""`bench step` runs and prints what its readers rely on. No timing is asserted."""

from __future__ import annotations

import json

import pytest

from main import main

SIZES = {"resolution": 64, "ae-dims": 32, "e-dims": 16, "d-dims": 16, "d-mask-dims": 16, "batch-size": 1, "rounds": 1}
SMALL = [f"--{name}={size}" for name, size in SIZES.items()]


@pytest.mark.parametrize("archi", ["df-ud", "liae-tc"])
def test_one_json_object_a_line(archi: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "step", "--archi", archi, *SMALL, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    promised = {"bench", "model", "archi", "resolution", "batch", "precision", "device", "ms", "floor_ms", "ratio"}
    assert promised <= set(result)
    assert (result["bench"], result["archi"], result["batch"]) == ("step", archi, 1)
    assert result["ratio"] > 0


def test_a_model_without_architectures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "step", "--model", "AMP", "--set", "inter_dims=32", *SMALL]) == 0
    assert capsys.readouterr().out.startswith("AMP 64 px, batch 1, full, cpu: ")


def test_a_wrong_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "step", "--archi", "dfx"]) == 2
    assert "archi: got 'dfx'" in capsys.readouterr().err
    assert main(["bench", "step", "--model", "AMP", "--archi", "df"]) == 2
    assert "'archi' is not an option of this model" in capsys.readouterr().err
