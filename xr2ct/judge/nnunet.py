"""A trained nnU-Net, loaded once, that segments one CT after the other in this process."""

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int16, UInt8
from numpy import ndarray

from xr2ct.checkpoint import load_checkpoint
from xr2ct.errors import UserError
from xr2ct.judge.environment import environment, require_nnunet
from xr2ct.judge.record import DATASET, PLANS, WEIGHTS, read_record


class NnunetSegmenter:
    """The judge in a folder of `xr2ct judge-train`; nothing is mirrored at test time, as nothing was in training."""

    kind = "nnunet"

    def __init__(self, folder: Path, device: torch.device):
        record = read_record(folder)
        self.structures, self.learned = record.structures, frozenset(record.cases)
        require_nnunet()
        plans, dataset = (_read_json(folder / name) for name in (PLANS, DATASET))
        weights = load_checkpoint(folder / WEIGHTS)["state"]
        threads = {"nnUNet_def_n_proc": str(torch.get_num_threads()), "nnUNet_compile": "f"}
        with environment(threads), redirect_stdout(StringIO()):
            self._predictor = _build_predictor(plans, dataset, weights, device)

    def segment(self, ct_hu: Int16[ndarray, "z y x"], affine: Float[ndarray, "4 4"]) -> UInt8[ndarray, "z y x"]:
        if not ct_hu.any():  # nnU-Net crops to what is not 0, and here is nothing to crop to
            return np.zeros(ct_hu.shape, np.uint8)
        spacing_zyx = np.linalg.norm(affine[:3, :3], axis=0)[::-1].tolist()
        image = ct_hu[None].astype(np.float32)
        label = self._predictor.predict_single_npy_array(image, {"spacing": spacing_zyx}, None, None, False)
        return np.asarray(label).astype(np.uint8)


def _build_predictor(plans: dict, dataset: dict, weights: dict[str, torch.Tensor], device: torch.device) -> Any:
    # the package's own way to load a folder would unpickle it and import every trainer with all that they need
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from xr2ct.judge.nnunet_plan import CONFIGURATION

    manager = PlansManager(plans)
    configuration = manager.get_configuration(CONFIGURATION)
    heads = manager.get_label_manager(dataset).num_segmentation_heads
    network = nnUNetTrainer.build_network_architecture(manager, configuration, 1, heads, enable_deep_supervision=False)
    network.load_state_dict(weights)
    predictor = nnUNetPredictor(use_mirroring=False, device=device, allow_tqdm=False)
    predictor.manual_initialization(network, manager, configuration, [weights], dataset, "JudgeTrainer", None)
    return predictor


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); expected a whole judge. Train it again.") from error
