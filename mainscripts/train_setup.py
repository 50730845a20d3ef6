"""What is settled before training: which model, on which faces, with which options, on which device.

Nothing is written here, so that every mistake is found while the disk is untouched.
"""

from __future__ import annotations

import argparse
import functools
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import device as devices
from core import prompts
from core.batch import SampleRequest
from core.device import Device
from core.distributed import ALONE, World
from core.modeldir import NAMELESS, ModelData, ModelDir, ModelError
from core.modelshelf import ModelShelf
from core.options import RESTART, Option, OptionError, Values, by_key, defaults, find, rounded, settle
from core.runstate import RunState
from core.stages import BUSY, COMPILING, DEVICE, FACES, MODEL, Stages
from core.values import parse_sets, read_options
from mainscripts import train_config
from mainscripts.train_faces import Folders, choose_faces
from mainscripts.train_history import find_faces
from mainscripts.train_place import Place
from mainscripts.train_world import check_split, chosen, own, shared
from models import MODELS, ModelSpec, Task
from models.sizes import check_sizes
from models.spec import upgrade
from samplelib.faceset import Faceset

Say = Callable[[str], None]
BIG_GPU = 4 << 30  # DFL: with this much memory the suggested batch of SAEHD is 8, else 4


@dataclass
class Setup:
    """A training about to begin. data: the stored record of an existing model, None for a new one. position: the number
    of the first batch. folders: the faces that the command line names."""

    spec: ModelSpec
    directory: ModelDir
    data: ModelData | None
    values: Values
    device: Device
    facesets: dict[str, Faceset]
    requests: dict[str, SampleRequest]
    seed: int
    position: int
    folders: Folders
    config: Path | None = None  # the configuration file whose options are taken
    history_faces: dict[str, list[int]] | None = None  # places of those that the command line names
    weights: bool = False  # a new model whose weights lie there already, without a record
    devices: list[Device] = field(default_factory=list)  # of all processes, `device` first
    world: World = ALONE


def find_spec(class_name: str) -> ModelSpec:
    """The model class of that name in any case. Raises OptionError listing the classes."""
    for name, spec in MODELS.items():
        if name.lower() == class_name.lower():
            return spec
    raise OptionError(f"--model: got {class_name!r}, allowed is {' / '.join(MODELS)}.")


def choose_name(
    args: argparse.Namespace, spec: ModelSpec, terminal: prompts.Terminal | None, say: Say
) -> tuple[str, bool]:
    """--force-model-name, else the newest (--silent-start, no terminal), else the user's choice; and whether it was
    asked for. Classes whose models have no names have one in a folder."""
    if spec.name in NAMELESS:
        return spec.name, False
    shelf = ModelShelf(args.model_dir, spec.name)
    for line in shelf.finish():
        say(line)
    saved = shelf.names()
    if args.force_model_name is not None:
        name = args.force_model_name if args.force_model_name in saved else prompts.check_name(args.force_model_name)
        if name != args.force_model_name:
            say(f'The model is called "{name}": a _ would part the name from the rest of a file name.')
        return name, False
    if terminal is None or (args.silent_start and saved):
        name = saved[0] if saved else "new"
        say(f'Silent start: chose model "{name}".' if args.silent_start else f'Model: "{name}".')
        return name, False
    return prompts.ask_model_name(terminal, shelf), True


def choose_devices(
    args: argparse.Namespace, terminal: prompts.Terminal | None, stages: Stages, back: bool
) -> tuple[list[Device], bool]:
    """The devices by flag, by question, or the one with most memory; and whether they were asked for. One for each
    process, that of this one first. back: see `prompts.ask`."""
    place, count = Place.of(os.environ), args.processes
    if args.cpu_only and args.force_gpu_idxs is not None:
        stages.say(f"--force-gpu-idxs {args.force_gpu_idxs} does not count, as --cpu-only is given.")
    if args.cpu_only and place is None:
        return shared([devices.CPU], count), False
    with stages.stage("Looking for graphics cards", DEVICE):
        found = devices.gpus()
    if place is not None:
        return own(place, args, found), False
    table = {device.key: device for device in (devices.CPU, *found)}
    if args.force_gpu_idxs is not None:
        return chosen(args.force_gpu_idxs, table, count, "--force-gpu-idxs"), False
    best = devices.best(found)
    if terminal is None or args.silent_start or not found:
        return shared([best], count), False
    names = {key: devices.describe(device) for key, device in table.items()}
    pick = functools.partial(chosen, table=table, processes=count, flag="GPU indexes")
    return pick(prompts.ask_device(terminal, names, best.key, back, pick)), True


def choose_values(
    spec: ModelSpec,
    given: Mapping[str, Any],
    directory: ModelDir,
    data: ModelData | None,
    terminal: prompts.Terminal | None,
    say: Say,
    override: float | bool = prompts.OVERRIDE_SECONDS,
    back: bool = False,
    every: bool = False,
) -> Values:
    """Options from --set, the questions, the stored model and defaults. override: whether the options of an existing
    model are asked anew, or how long the user has to say so. every: asks, after DFL's questions, those that DFL does
    not have. Raises OptionError, and Back as `prompts.ask_rows`."""
    stored, kept = (data.options, directory.read_kept()) if data is not None else ({}, {})
    preferred = {} if data is not None else directory.read_default_options()
    initial = spec.resolve(given, stored, preferred, kept)
    # Not `initial`: rounding, and defaults that follow from other answers, wait for those answers.
    known = defaults(spec.rows, upgrade(stored), upgrade(preferred), kept=kept)
    given = by_key(spec.rows, given)
    fixed = {key: find(spec.rows, key).parse(value, believe=True) for key, value in given.items()}
    early = rounded(spec.rows, {**known, **fixed}, given)
    for note in initial.notes:
        if note not in early:
            say(note)
    asks = spec.asks or every
    if terminal is None or (data is not None and not (asks and _overrides(terminal, override))):
        values, late = initial, early
    else:
        rows = (*prompts.usual(spec.rows), *prompts.further(spec.rows, data is None)) if every else spec.rows
        answers = prompts.ask_rows(terminal, rows, known, fixed, data is None, back)
        values, late = settle(spec.rows, answers), rounded(spec.rows, answers, answers)
    for note in late:
        say(note)
    return values


def _overrides(terminal: prompts.Terminal, override: float | bool) -> bool:
    return override if isinstance(override, bool) else prompts.ask_override(terminal, override)


def read_data(directory: ModelDir, say: Say) -> tuple[ModelData | None, bool]:
    """The record of an existing model, None for a new one; and whether weights of a new one lie there already, without
    a record. Those are trained on: a new model of that name would overwrite them."""
    parts = [path.name for path in directory.files() if path.suffix == ".npy"] if directory.folder.is_dir() else []
    record = directory.data_path.name
    if directory.data_path.exists():
        data = directory.read_data()
        if parts and not data.iter:
            say(f"{record} counts 0 iterations. Training goes on with the weights beside it, and counts from 0.")
        return (data if data.iter or parts else None), False
    say("Model first run.")
    if parts:
        say(
            f"{directory.folder} holds {', '.join(parts)} and no {record}: training goes on with these weights, and "
            "counts from 0. Give the options that they were trained with. To start anew, move the files away."
        )
    return None, bool(parts)


def random_state(directory: ModelDir, data: ModelData | None, say: Say) -> RunState:
    """What the model's last save kept of seed and position. Where that is missing or not of this save: a new seed, and
    samples numbered as iterations."""
    if data is None:
        return RunState(0, secrets.randbits(31), 0)
    reason = ""
    try:
        state = directory.read_state()
        if state is not None and state.iteration == data.iter:
            return state
        if state is not None:
            reason = (
                f"{directory.state_path.name} is of iteration {state.iteration}, the model of {data.iter}: it was "
                "trained or restored by other means."
            )
    except ModelError as error:
        reason = str(error)
    if reason:
        say(f"{reason} Training goes on, with other samples than if it had not been stopped.")
    return RunState(data.iter, secrets.randbits(31), data.iter)


def check_precision(device: Device, values: Values) -> list[str]:
    """Lines about the precision on this device. Raises OptionError where it cannot compute in it."""
    import torch

    from core.precision import settle

    return settle(values["mp_mode"], torch.device(device.torch_name))[1]


def prepare(
    args: argparse.Namespace, directory: ModelDir, spec: ModelSpec, terminal: prompts.Terminal | None,
    folders: Folders, stages: Stages, back: bool = False,
) -> Setup:  # fmt: skip
    """Everything from the stored record to the faces of each side, asking what is to be asked. back: the model was
    asked for, so `<` at the first question leads there (Back)."""
    say = stages.say
    given = advance_answers(args, spec)
    say(f"Loading {directory.full_name} model...")
    with stages.stage("Reading data.dat", MODEL, shown=False):
        data, weights = read_data(directory, say)
    while True:
        config = train_config.ask(args, directory, data is not None, given, terminal, back)
        answers = {**config.given(spec, say), **given}
        # MVE: such a file answers all questions
        person = terminal if config.path is None else None
        try:
            all_devices, spec, values = _choose(
                args, spec, answers, directory, data, terminal, person, stages, config.asked or back
            )
            break
        except prompts.Back:
            if not config.asked:
                raise
    if values.get(RESTART):
        values[RESTART] = False
        if data is not None or weights:
            say(f"Training starts anew, at iteration 0. The first save replaces the files of {directory.full_name}.")
            data, weights = None, False
    check_split(all_devices, values, args.debug)
    check_precision(all_devices[0], values)
    requests = spec.requests(values)
    with stages.stage("Choosing samples", FACES, shown=False):
        facesets = choose_faces(folders, values, requests, say, stages.advance)
    state = random_state(directory, data, say)
    seed = state.seed if args.seed is None else args.seed
    return Setup(
        spec, directory, data, values, all_devices[0], facesets, requests, seed, state.position, folders, config.path,
        find_faces(args.history_faces, values, facesets), weights, all_devices,
    )  # fmt: skip


def advance_answers(args: argparse.Namespace, spec: ModelSpec) -> dict[str, Any]:
    """What the command line answers, by the rows' own keys: flags of a row > --set > --options. Raises OptionError."""
    filed = by_key(spec.rows, read_options(args.options)) if args.options is not None else {}
    given = {**filed, **by_key(spec.rows, parse_sets(args.sets))}
    if args.target_iter is not None:
        given["target_iter"] = str(args.target_iter)
    if args.compile is not None:
        given["compile"] = args.compile
    return given


def _choose(
    args: argparse.Namespace, spec: ModelSpec, given: Mapping[str, Any], directory: ModelDir, data: ModelData | None,
    terminal: prompts.Terminal | None, person: prompts.Terminal | None, stages: Stages, back: bool,
) -> tuple[list[Device], ModelSpec, Values]:  # fmt: skip
    """Devices, the model with defaults that suit it, and options. person: who is asked for those. Raises Back at the
    first question where there is one before it."""
    while True:
        found, asked = choose_devices(args, terminal, stages, back)
        big = data is None and found[0].memory >= BIG_GPU
        fitting = spec.with_defaults(**spec.roomy) if big else spec
        try:
            values = choose_values(
                fitting, given, directory, data, person, stages.say, args.override, asked or back, args.all_questions
            )
            return found, fitting, values
        except prompts.Back:
            if not asked:
                raise


def build(
    setup: Setup, reinit: list[str], terminal: prompts.Terminal | None, stages: Stages, start: Path | None = None
) -> Task:
    """The network, with the stored weights of an existing model, or for a new one those of folder `start`. A missing
    part is asked about, never silently new."""
    stored = setup.data is not None or setup.weights
    with stages.stage("Initializing models", COMPILING if setup.device.key != "CPU" else BUSY):
        if stored:
            check_sizes(setup.spec, setup.values, setup.directory, reinit)
        devices.tune(setup.device)
        task = setup.spec.build(setup.values, device=setup.device.torch_name, seed=setup.seed)
    for note in task.precision.notes:
        stages.say(note)
    wanted = list(reinit)
    parts = (*task.network_parts, *task.optional_parts)
    unknown = sorted(set(wanted) - set(parts))
    if unknown:
        raise OptionError(f"--reinit: got {', '.join(unknown)}, allowed is {' / '.join(parts)}.")
    if not stored:
        if start is not None:
            with stages.stage("Loading weights", MODEL):
                notes = task.start_from(start)
            for note in notes:
                stages.say(note)
        return task
    missing = setup.directory.missing(task.network_parts)
    if len(missing) == len(task.network_parts) > 0 and setup.weights:
        raise ModelError(
            f"{setup.directory.folder} holds files of {setup.directory.full_name}, and of its network none. Move them "
            "away, or take another name."
        )
    for stem in missing:
        if stem not in wanted and terminal is not None and _ask_reinit(terminal, stem):
            wanted.append(stem)
    with stages.stage("Loading weights", MODEL):
        notes = task.load(setup.directory.folder, setup.directory.name, wanted, stages.advance)
    for note in notes:
        stages.say(note)
    if setup.data is not None and task.iteration != setup.data.iter:
        # pretraining was switched off: a new count, on other faces
        setup.position = task.iteration
    return task


def _ask_reinit(terminal: prompts.Terminal, stem: str) -> bool:
    row = Option(
        stem, "bool", f"{stem} is missing. Start it anew?",
        f"The file of {stem} is not in the model folder. y fills it with fresh random weights and goes on; n leaves, "
        "so that you can put the file back. Deleting inter_AB on purpose is a known way to reuse a liae model.",
        default=False,
    )  # fmt: skip
    return bool(prompts.ask_row(terminal, row, False))
