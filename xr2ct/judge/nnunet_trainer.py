"""nnU-Net's trainer without mirroring, with our schedule, log and resume file; imported only where nnunetv2 is."""

import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)
from tqdm import tqdm

from xr2ct.checkpoint import load_checkpoint, save_checkpoint
from xr2ct.errors import UserError
from xr2ct.judge.sizes import Size
from xr2ct.stop import StopRequest
from xr2ct.tables import write_csv

RESUME, LOG = "resume.pt", "train.csv"
COLUMNS = ("iteration", "seconds", "loss", "fit_dice", "learning_rate")
SAVE_SECONDS = 120


class JudgeTrainer(nnUNetTrainerNoMirroring):
    """A mirrored left lung is a right one, so nothing is mirrored. Call `follow` before `run_training`."""

    def follow(
        self, size: Size, iterations: int, *, seed: int, out: Path, identity: Mapping[str, Any], stop: StopRequest
    ) -> None:
        """Train `iterations` (rounded up to whole epochs), from `out`/resume.pt where `identity` is the same."""
        self.num_iterations_per_epoch = min(size.epoch_iterations, iterations)
        self.num_epochs = -(-iterations // self.num_iterations_per_epoch)
        self.num_val_iterations_per_epoch = size.watch_iterations
        self.disable_checkpointing = True  # nnU-Net's checkpoints are pickles, which run code when they are read
        self.adam_rate = size.adam_rate
        self.seed, self.out, self.identity, self.stop = seed, out, dict(identity), stop
        self.rows: list[dict[str, float]] = []
        self.before, self.began = 0.0, time.monotonic()
        self.saved_at = self.began

    def on_train_start(self) -> None:
        seed_everything(self.seed, -1)
        super().on_train_start()
        if self.device.type == "cpu":
            self.network.to(memory_format=torch.channels_last_3d)  # 1.5 times as fast there
        if (self.out / RESUME).exists():
            saved = load_checkpoint(self.out / RESUME)
            if saved["identity"] == self.identity:
                self._resume(saved)
        self.bar = tqdm(total=self.num_epochs, initial=self.current_epoch, desc="train", unit="epoch")

    def on_train_epoch_start(self) -> None:
        seed_everything(self.seed, self.current_epoch)
        super().on_train_epoch_start()

    def on_epoch_end(self) -> None:
        """Stands in for nnU-Net's: a row of train.csv and the resume file for its plots and checkpoints."""
        loss = float(self.logger.get_value("train_losses", step=-1))
        if not np.isfinite(loss):
            raise UserError(f"the judge's loss is {loss}; expected a finite number. Train with another --seed.")
        self.current_epoch += 1
        self.rows.append(
            {
                "iteration": self.current_epoch * self.num_iterations_per_epoch,
                "seconds": self.seconds(),
                "loss": loss,
                "fit_dice": float(self.logger.get_value("mean_fg_dice", step=-1)),
                "learning_rate": float(self.logger.get_value("lrs", step=-1)),
            }
        )
        write_csv(self.out / LOG, COLUMNS, self.rows)
        self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self.bar.update()
        if self.stop.signal or time.monotonic() - self.saved_at > SAVE_SECONDS:
            self._save()
        if self.stop.signal:
            print(f"Stopped by signal {self.stop.signal}; the same command goes on from there.", file=sys.stderr)
            raise SystemExit(128 + self.stop.signal)

    def on_train_end(self) -> None:
        self.bar.close()
        super().on_train_end()

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """AdamW for a size that asks for it, with the weight decay and the schedule of nnU-Net."""
        if not self.adam_rate:
            return super().configure_optimizers()
        optimizer = torch.optim.AdamW(self.network.parameters(), self.adam_rate, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.adam_rate, self.num_epochs)

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    @staticmethod
    def get_training_transforms(*arguments: Any, **options: Any) -> Any:
        """Without the blur's stopwatch, which picks the faster of two algorithms that differ in the last digit."""
        chain = nnUNetTrainerNoMirroring.get_training_transforms(*arguments, **options)
        for step in chain.transforms:
            if getattr(blur := getattr(step, "transform", step), "benchmark", False):
                blur.benchmark = False
        return chain

    def plot_network_architecture(self) -> None:
        """Nothing: it needs one more package and draws a file nobody asked for."""

    def _save_debug_information(self) -> None:
        """Nothing: it would write this machine's name into a file."""

    def _save(self) -> None:
        state = {"identity": self.identity, "epoch": self.current_epoch, "rows": self.rows, "seconds": self.seconds()}
        state |= {"state": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.grad_scaler is not None:
            state["scaler"] = self.grad_scaler.state_dict()
        save_checkpoint(self.out / RESUME, state)
        self.saved_at = time.monotonic()

    def _resume(self, saved: Mapping[str, Any]) -> None:
        self.network.load_state_dict(saved["state"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.grad_scaler is not None and "scaler" in saved:
            self.grad_scaler.load_state_dict(saved["scaler"])
        self.current_epoch, self.rows, self.before = saved["epoch"], saved["rows"], saved["seconds"]
        # nnU-Net's log wants one value per epoch, from the first one on
        for name, values in self.logger.get_checkpoint().items():
            values.extend([[] if name == "dice_per_class_or_region" else float("nan")] * self.current_epoch)


def seed_everything(seed: int, epoch: int) -> None:
    """Every epoch is a function of seed and epoch, so that one that is resumed sees what it would have seen."""
    (number,) = np.random.SeedSequence([seed, epoch + 1]).generate_state(1)
    random.seed(int(number))
    np.random.seed(number)
    torch.manual_seed(int(number))
