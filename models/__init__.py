"""The models by name. `MODELS["SAEHD"].resolve(...)`, then `.build(...)`: see docs/api.md."""

from __future__ import annotations

from models.amp import AMP
from models.saehd import QUICK64, QUICK96, SAEHD, SAEHDBW
from models.spec import ModelSpec, PartError, Task
from models.xseg import XSEG

MODELS: dict[str, ModelSpec] = {spec.name: spec for spec in (SAEHD, AMP, QUICK96, QUICK64, SAEHDBW, XSEG)}

__all__ = ["MODELS", "ModelSpec", "PartError", "Task"]
