"""Fingerprint, plan and preprocessed data by nnU-Net's own classes; imported only where nnunetv2 is."""

from typing import Any

import numpy as np
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from xr2ct.judge.environment import environment
from xr2ct.judge.sizes import Size

CONFIGURATION = "3d_fullres"
BATCH = 2  # the planner's smallest; it would fill its GPU with more of the small patches


class SmallPlanner(ExperimentPlanner):
    """The stock planner, told of smaller images and of a network with fewer features."""

    size: Size

    def get_plans_for_configuration(self, spacing: Any, median_shape: Any, *rest: Any) -> dict[str, Any]:
        self.UNet_base_num_features, self.UNet_max_features_3d = self.size.features, self.size.most_features
        shape = np.minimum(median_shape, self.size.largest_patch)
        return super().get_plans_for_configuration(spacing, shape, *rest) | {"batch_size": BATCH}


def prepare(dataset: str, size: Size, processes: int) -> dict[str, Any]:
    """The plans for the data set below nnUNet_raw, its cases preprocessed accordingly."""
    extractor = DatasetFingerprintExtractor(dataset, processes)
    extractor.show_progress_bar = False
    extractor.run(overwrite_existing=True)
    planner = ExperimentPlanner(dataset)
    if size.largest_patch:
        planner = SmallPlanner(dataset)
        planner.size = size
    with environment({"nnUNet_n_proc_DA": "1"}):  # the planner takes it for a number of threads, which cannot be 0
        plans = planner.plan_experiment()
    configuration = PlansManager(plans).get_configuration(CONFIGURATION)
    preprocessor = configuration.preprocessor_class(verbose=False)
    preprocessor.show_progress_bar = False
    preprocessor.run(dataset, CONFIGURATION, planner.plans_identifier, processes)
    return plans
