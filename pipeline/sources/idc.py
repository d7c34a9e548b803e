"""LIDC-IDRI and NLST from NCI Imaging Data Commons: one regular CT series per patient, pinned to one IDC version.

Needs the optional package idc-index. The list of cases is a query on geometry: slices evenly spaced, no gantry tilt, at
most 3 mm apart. NLST comes with the DICOM segmentations that TotalSegmentator 1.5.6 made of it (doi:10.5281/zenodo.8347011);
of a patient's series one that has some is preferred.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from pipeline.errors import CaseError, TransientError, UserError
from pipeline.patients import is_case_id
from pipeline.sources.contract import Edition, Source, SourceCase
from pipeline.sources.shelf import Shelf
from pipeline.structures import load_scheme

_SEGMENTATIONS = {"nlst": "totalsegmentator_ct_segmentations"}
"""Collection -> the analysis result whose segmentations are its labels."""
_INDEXES = ("ct_index", "volume_geometry_index", "seg_index")
_QUERY = """
select i.PatientID, i.crdc_series_uuid, i.instanceCount, coalesce(min(g.crdc_series_uuid), '') as segmentation
from index i join ct_index t using (SeriesInstanceUID) join volume_geometry_index v using (SeriesInstanceUID)
  left join seg_index s on s.segmented_SeriesInstanceUID = i.SeriesInstanceUID
  left join index g on g.SeriesInstanceUID = s.SeriesInstanceUID and g.analysis_result_id = '{segmentations}'
    and g.license_short_name = i.license_short_name and g.instanceCount = 1
where i.collection_id = '{collection}' and i.Modality = 'CT' and i.license_short_name = '{license}'
  and v.regularly_spaced_3d_volume and v.slice_spacing_mm <= 3 and coalesce(t.GantryDetectorTilt, 0) = 0
  and i.instanceCount >= 50
group by i.PatientID, i.crdc_series_uuid, i.instanceCount, i.SeriesInstanceUID
qualify row_number() over (
  partition by i.PatientID order by segmentation = '', i.instanceCount desc, i.SeriesInstanceUID) = 1
"""
_SAME_VOXELS_MM = 0.1


def list_cases(edition: Edition, shelf: Shelf) -> list[SourceCase]:
    """The longest suitable series of each patient, where there is one with a segmentation the longest of those."""
    client = _client(edition)
    for name in _INDEXES:
        try:
            client.fetch_index(name)
        except OSError as error:
            raise TransientError(
                f"{name} of Imaging Data Commons could not be downloaded: {type(error).__name__}"
            ) from None
    license_name = edition.license.replace("CC-BY-", "CC BY ")
    collection = _collection(edition)
    query = _QUERY.format(
        collection=collection, license=license_name, segmentations=_SEGMENTATIONS.get(collection, "none")
    )
    rows = client.sql_query(query).to_dict("records")
    cases = []
    for row in rows:
        patient = str(row["PatientID"])
        name = patient if is_case_id(patient) else str(row["crdc_series_uuid"])
        files = {"series": str(row["crdc_series_uuid"]), "slices": str(row["instanceCount"])}
        if row["segmentation"]:
            files["segmentation"] = str(row["segmentation"])
        cases.append(SourceCase(name, patient, "", files))
    return cases


def read_case(edition: Edition, shelf: Shelf, case: SourceCase, folder: Path) -> dict:
    """Download the series and its segmentation, which becomes one label map; both are whole or it is tried again."""
    client = _client(edition)
    _download(client, case.files["series"], folder / "ct", int(case.files["slices"]), case.id)
    if "segmentation" not in case.files:
        return {"ct": "ct", "label": None}
    segmentation = folder / "segmentation"
    (found,) = _download(client, case.files["segmentation"], segmentation, 1, case.id)
    label_by_scheme(found, folder / "ct", load_scheme(edition.label_scheme), folder / "label.nii.gz")
    shutil.rmtree(segmentation)
    return {"ct": "ct", "label": "label.nii.gz"}


def _download(client, series: str, folder: Path, expected: int, case: str) -> list[Path]:
    """The files of a series, as many as the index says; what an earlier attempt brought stays."""
    folder.mkdir(parents=True, exist_ok=True)
    client.download_from_selection(
        crdc_series_uuid=[series],
        downloadDir=str(folder),
        dirTemplate=None,
        show_progress_bar=False,
        use_s5cmd_sync=True,
    )
    found = [path for path in sorted(folder.rglob("*.dcm")) if path.stat().st_size]
    if len(found) != expected:
        raise TransientError(
            f"{len(found)} of {expected} slices of {case} arrived. Run the same command again: it goes on."
        )
    return found


def label_by_scheme(segmentation: Path, series: Path, scheme: dict[int, str], path: Path) -> None:
    """Publish a DICOM segmentation of a series as a label map with the ids of a scheme, segments matched by name.

    Positions that are printed with few digits put the segmentation up to 0.1 mm beside the voxels of its CT: it is then
    put onto them. What lies farther off stays where it says it lies, and the label stage refuses it.
    """
    from pipeline.nifti import save_nifti
    from pipeline.read.dicom_seg import read_dicom_seg
    from pipeline.read.dicom_series import find_series, series_affine, stack

    found = read_dicom_seg(segmentation)
    ids = {name: value for value, name in scheme.items()}
    unknown = [number for number, name in found.names.items() if name not in ids]
    if unknown:
        raise CaseError("E_LABEL_VALUES", f"segment {unknown[0]} is no structure that this data set has")
    lookup = np.zeros(max(found.names) + 1, np.int16)
    for number, name in found.names.items():
        lookup[number] = ids[name]
    slices, _ = find_series(series)
    ct_affine = series_affine([place[0] for place in stack(slices)])
    affine = on_lattice(found.affine, found.data.shape, ct_affine)
    save_nifti(path, lookup[found.data].T, affine)


def on_lattice(affine: np.ndarray, shape: tuple[int, ...], lattice: np.ndarray) -> np.ndarray:
    """`affine`, moved onto the voxels of another one where that moves no voxel by more than 0.1 mm."""
    exact = lattice @ np.rint(np.linalg.inv(lattice) @ affine)
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(shape) - 1)
    moved = (exact - affine)[:3] @ np.c_[corners, np.ones(8)].T
    return exact if np.linalg.norm(moved, axis=0).max() <= _SAME_VOXELS_MM else affine


def _collection(edition: Edition) -> str:
    return edition.dataset.replace("-", "_")


def _client(edition: Edition):
    try:
        from idc_index import IDCClient
    except ImportError:
        raise UserError(
            f"source {edition.dataset} needs the package idc-index, which is not installed. Run: pip install 'xr2ct[idc]'"
        ) from None
    client = IDCClient()
    if client.get_idc_version() != edition.version:
        raise UserError(
            f"the installed idc-index knows IDC {client.get_idc_version()}; expected {edition.version}, to which this source "
            "is pinned. Install the idc-index that pyproject.toml names."
        )
    return client


def _source(
    dataset: str, about: str, license: str, doi: str, attribution: str, label_scheme: str = "totalsegmentator_v2"
) -> Source:
    edition = Edition(
        dataset=dataset,
        version="v25",
        doi=doi,
        license=license,
        attribution=attribution,
        mixing="with anything that asks for attribution only",
        label_scheme=label_scheme,
        files=(),
        list_cases=list_cases,
        read_case=read_case,
    )
    return Source(about=about, keys=("cases", "limit", "split", "version"), editions={"v25": edition})


LIDC = _source(
    "lidc-idri",
    "LIDC-IDRI through IDC, chest CTs of up to 1010 patients, no organ labels; 107 MB per series",
    "CC-BY-3.0",
    "10.7937/K9/TCIA.2015.LO9QL9SX",
    "LIDC-IDRI (Armato et al., The Cancer Imaging Archive 2015; Medical Physics 2011, doi:10.1118/1.3528204), through NCI "
    "Imaging Data Commons",
)
NLST = _source(
    "nlst",
    "NLST through IDC, low-dose chest CTs of up to 26 246 patients with the labels of TotalSegmentator 1.5.6; per case about "
    "66 MB of CT and, passing through, 109 MB of labels",
    "CC-BY-4.0",
    "10.7937/TCIA.HMQ8-J677",
    "National Lung Screening Trial (NLST Research Team, The Cancer Imaging Archive 2013), through NCI Imaging Data Commons; "
    "labels: TotalSegmentator segmentations (Krishnaswamy et al., doi:10.5281/zenodo.8347011)",
    label_scheme="totalsegmentator_v1",
)
