"""The training loop: every step is a function of (seed, step), every stop can be resumed to the same end."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from xr2ct.cases import Cases, Example, Task
from xr2ct.checkpoint import load_checkpoint, save_checkpoint
from xr2ct.errors import UserError
from xr2ct.models.model import Trainable
from xr2ct.stop import stop_requests
from xr2ct.training_log import TrainingLog, watch_scores
from xr2ct.training_settings import TrainingSettings, learning_rate, make_optimizer, total_steps

RESUME = "resume.pt"
LOG = "train.csv"


def batch_of(step: int, n_cases: int, batch: int, seed: int) -> list[int]:
    """Case numbers of one step: the cases in a new random order per epoch, read on without a gap."""
    positions = step * batch + np.arange(batch)
    orders = {epoch: np.random.default_rng([seed, epoch]).permutation(n_cases) for epoch in set(positions // n_cases)}
    return [int(orders[position // n_cases][position % n_cases]) for position in positions]


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
) -> TrainingLog:
    """Train `model` in place, from `out`/resume.pt where an earlier call of the same `identity` was stopped.

    SIGTERM or Ctrl-C saves and leaves with exit code 128 + signal; a loss that is not finite is a UserError and leaves
    the last state whose loss was finite.
    """
    optimizer = make_optimizer(model, settings)
    steps, log, start, before = total_steps(len(cases), settings), TrainingLog(), 0, 0.0
    if (out / RESUME).exists():
        saved = load_checkpoint(out / RESUME)
        require_same_run(saved["identity"], identity, out / RESUME)
        model.load_state_dict(saved["state"])
        optimizer.load_state_dict(saved["optimizer"])
        log, start, before = TrainingLog(**saved["log"]), saved["step"], saved["seconds"]
        print(f"Resuming at step {start} of {steps}.")

    began = saved_at = time.monotonic()

    def save(step: int) -> None:
        state = {"identity": identity, "step": step, "seconds": before + time.monotonic() - began, "log": log.state()}
        state |= {"state": model.state_dict(), "optimizer": optimizer.state_dict()}
        save_checkpoint(out / RESUME, state)

    with stop_requests() as stop, tqdm(total=steps, initial=start, unit="step", desc="train") as bar:
        for step in range(start, steps):
            examples = [cases[i] for i in batch_of(step, len(cases), settings.batch, seed)]
            parts = model.loss(examples, np.random.default_rng([seed, step, 1]))
            loss = parts["loss"].item()
            if not math.isfinite(loss):
                raise UserError(not_finite(f"the loss is {loss} at step {step}", out))
            if stop.signal or time.monotonic() - saved_at > 60 * settings.save_minutes:
                save(step)  # here the parameters have just shown a finite loss
                saved_at = time.monotonic()
            if stop.signal:
                print(f"Stopped by signal {stop.signal} at step {step}; the same command goes on from there.")
                raise SystemExit(128 + stop.signal)

            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * learning_rate(step, len(cases), settings)
            optimizer.zero_grad(set_to_none=True)
            parts["loss"].backward()
            if settings.clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            optimizer.step()

            log.add({name if name == "loss" else f"loss_{name}": part.item() for name, part in parts.items()})
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update()
            done, last = step + 1, step + 1 == steps
            if done % settings.log_steps == 0 or last:
                scores = watch_scores(model, watch, task) if done % settings.watch_steps == 0 or last else {}
                seconds = before + time.monotonic() - began
                log.close_row(step=done, seconds=seconds, learning_rate=optimizer.param_groups[0]["lr"], **scores)
                log.write(out / LOG)
    if not all(bool(value.isfinite().all()) for value in model.parameters()):
        raise UserError(not_finite("parameters are not finite after the last step", out))
    return log


def require_same_run(saved: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    """UserError that names what differs between the run of a resume file and the present one."""
    pairs = _flat(saved), _flat(wanted)
    differing = sorted(key for key in pairs[0] | pairs[1] if pairs[0].get(key) != pairs[1].get(key))
    if differing:
        named = ", ".join(f"{key} {pairs[0].get(key)} there, {pairs[1].get(key)} here" for key in differing[:3])
        raise UserError(f"{path} is of another run ({named}). Remove it to start afresh, or choose another --out.")


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    nested = {key: value if isinstance(value, dict) else {"": value} for key, value in values.items()}
    return {f"{key}.{name}".rstrip("."): item for key, value in nested.items() for name, item in value.items()}


def not_finite(what: str, out: Path) -> str:
    kept = f" and remove {out / RESUME} (the last good state)" if (out / RESUME).exists() else ""
    return f"{what}; expected a finite number. Lower learning_rate or set clip{kept} to start afresh."
