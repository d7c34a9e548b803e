"""The training loop: every step is a function of (seed, step), every stop can be resumed to the same end."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from xr2ct.average import Average, shown
from xr2ct.cases import Cases, Example, Task
from xr2ct.distributed import largest_over_processes, rank, sum_gradients, world_size
from xr2ct.errors import UserError
from xr2ct.freezing import freeze, set_training
from xr2ct.journal import Journal
from xr2ct.models.model import Trainable, known_structures
from xr2ct.resume import RESUME, load_resume, remove_resume, save_resume
from xr2ct.stop import stop_requests
from xr2ct.training_log import TrainingLog, watch_scores
from xr2ct.training_settings import TrainingSettings, learning_rate, make_optimizer, total_steps
from xr2ct.training_state import TrainingState
from xr2ct.watch_pictures import watch_picture


def batch_of(step: int, n_cases: int, batch: int, seed: int) -> list[int]:
    """Case numbers of one step: the cases in a new random order per epoch, read on without a gap."""
    positions = step * batch + np.arange(batch)
    orders = {epoch: np.random.default_rng([seed, epoch]).permutation(n_cases) for epoch in set(positions // n_cases)}
    return [int(orders[position // n_cases][position % n_cases]) for position in positions]


def require_feasible(settings: TrainingSettings, watch: Sequence[Example]) -> None:
    """UserError for settings that these processes or watched cases cannot serve."""
    if settings.batch < world_size():
        raise UserError(
            f"batch is {settings.batch} for {world_size()} processes; expected a case for each. "
            f"Raise batch or start fewer processes."
        )
    if settings.patience and not watch:
        raise UserError(f"patience is {settings.patience}, but no case is watched. Give --watch, or patience 0.")


def descend(
    model: Trainable,
    settings: TrainingSettings,
    *,
    task: Task,
    cases: Cases,
    watch: Sequence[Example],
    out: Path,
    identity: dict[str, Any],
    seed: int,
    device: torch.device,
    fresh: bool = False,
    tensorboard: bool = False,
) -> TrainingLog:
    """Train `model` in place, from `out`/resume.pt where an earlier call of the same `identity` was stopped.

    SIGTERM or Ctrl-C saves and leaves with exit code 128 + signal; a loss that is not finite is a UserError and leaves
    the last state whose loss was finite. `fresh` discards what an earlier call left.
    """
    frozen = freeze(model, settings.freeze)
    average = Average(model, settings.ema) if settings.ema else None
    state = TrainingState(model, make_optimizer(model, settings), average)
    steps = total_steps(len(cases), settings)
    saved = None if fresh else load_resume(out, identity)
    if fresh and rank() == 0:
        remove_resume(out)
    if saved:
        state.restore(saved)
        say(f"Resuming at step {state.step} of {steps}.")
    saved_at = time.monotonic()
    with (
        stop_requests() as stop,
        Journal(out, start=state.step, tensorboard=tensorboard) as journal,
        tqdm(total=steps, initial=state.step, unit="step", desc="train", disable=rank() > 0) as bar,
    ):
        while state.step < steps:
            numbers = batch_of(state.step, len(cases), settings.batch, seed)[rank() :: world_size()]
            set_training(model, frozen)
            statistics = {
                name: value.clone() for name, value in model.named_buffers()
            }  # batch norm moves its own in `loss`
            parts = model.loss([cases[i] for i in numbers], np.random.default_rng([seed, state.step, 1]))
            loss = parts["loss"].item()
            if not math.isfinite(loss):
                raise UserError(not_finite(f"the loss is {loss} at step {state.step}", out))
            signal = largest_over_processes(stop.signal, device)
            if rank() == 0 and (signal or time.monotonic() - saved_at > 60 * settings.save_minutes):
                # here the parameters have just shown a finite loss
                save_resume(out, {"identity": identity} | state.content(statistics))
                saved_at = time.monotonic()
            if signal:
                say(f"Stopped by signal {signal} at step {state.step}; the same command goes on from there.")
                raise SystemExit(128 + signal)

            rate = learning_rate(state.step, len(cases), settings)
            step_down(state, parts["loss"], rate, settings.clip)
            state.log.add({name if name == "loss" else f"loss_{name}": part.item() for name, part in parts.items()})
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update()
            last = state.step == steps
            watched = bool(watch) and (last or state.step % settings.watch_steps == 0)
            if not (watched or last or state.step % settings.log_steps == 0):
                continue
            scores = look(state, watch, task, journal, keep_best=settings.patience > 0) if watched else {}
            state.log.close_row(step=state.step, seconds=state.seconds, learning_rate=rate, **scores)
            journal.row(state.log)
            for path in cases.newly_gone():
                say(
                    f"{path} was removed (seen at step {state.step}). It is open and read to the end; others will miss it."
                )
            tired = settings.patience and state.best.rounds_since >= settings.patience
            if largest_over_processes(int(tired), device):
                say(f"No better PSNR since step {state.best.step} ({state.best.psnr_db:.2f} dB): ending here.")
                break
    if settings.patience and state.best.model:
        model.load_state_dict(state.best.model)
    elif average:
        average.write_to(model)
    if not all(bool(value.isfinite().all()) for value in model.parameters()):
        raise UserError(not_finite("parameters are not finite after the last step", out))
    return state.log


def step_down(state: TrainingState, loss: Tensor, rate: float, clip: float) -> None:
    """One step of the optimiser along the gradient of all processes."""
    for group in state.optimizer.param_groups:
        group["lr"] = group["rate"] * rate
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    sum_gradients(state.model.parameters())
    if clip:
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), clip)
    state.optimizer.step()
    if state.average:
        state.average.update(state.model, state.step)
    state.step += 1


def look(
    state: TrainingState, watch: Sequence[Example], task: Task, journal: Journal, *, keep_best: bool
) -> dict[str, float]:
    """Scores of the watched cases and a picture of the first; the state is kept if it is the best so far."""
    with shown(state.model, state.average):
        predictions = [state.model.predict(example.xray, example.case.affine) for example in watch]
        scores = watch_scores(predictions, watch, task, known_structures(state.model, task))
        if keep_best:
            state.best.see(scores["watch_psnr_db"], state.step, state.model)
    journal.picture(state.step, watch_picture(watch[0], predictions[0]))
    return scores


def say(text: str) -> None:
    """Print, once for all processes."""
    if rank() == 0:
        print(text)


def not_finite(what: str, out: Path) -> str:
    kept = f" and give --fresh ({out / RESUME} keeps the last good state)" if (out / RESUME).exists() else ""
    return f"{what}; expected a finite number. Lower learning_rate or set clip{kept} to start afresh."
