"""The classes of TotalSegmentator's task `total` that a structure of the shards is made of, where names differ."""


def _sides(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}_{side}" for name in names for side in ("left", "right"))


LUMBAR = tuple(f"L{i}" for i in range(1, 6))
VERTEBRAE = (*(f"C{i}" for i in range(1, 8)), *(f"T{i}" for i in range(1, 13)), *LUMBAR)
RIBS = tuple(f"rib_{side}_{i}" for side in ("left", "right") for i in range(1, 13))

GROUPS: dict[str, tuple[str, ...]] = {
    "adrenal_gland": _sides("adrenal_gland"),
    "autochthon": _sides("autochthon"),
    "clavicle": _sides("clavicula"),
    "femur": _sides("femur"),
    "gluteus": _sides("gluteus_maximus", "gluteus_medius", "gluteus_minimus"),
    "heart": ("heart", "atrial_appendage_left"),
    "hip": _sides("hip"),
    "humerus": _sides("humerus"),
    "iliopsoas": _sides("iliopsoas"),
    "kidney": _sides("kidney"),
    "lumbar_spine": tuple(f"vertebrae_{name}" for name in LUMBAR),
    "lung_left": ("lung_upper_lobe_left", "lung_lower_lobe_left"),
    "lung_right": ("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
    "ribs": RIBS,
    "ribs_and_cartilages": (*RIBS, "costal_cartilages"),
    "sacrum": ("sacrum", "vertebrae_S1"),
    "scapula": _sides("scapula"),
    "thyroid": ("thyroid_gland",),
    "vertebrae": tuple(f"vertebrae_{name}" for name in VERTEBRAE),
    **{f"vertebra_{name}": (f"vertebrae_{name}",) for name in (*VERTEBRAE, "T13", "L6")},
}


def classes_of(structure: str) -> tuple[str, ...]:
    """What the pipeline merges into `structure`; a name without a group of its own stands for itself."""
    return GROUPS.get(structure, (structure,))
