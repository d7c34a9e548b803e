"""Command line of `xr2ct reconstruct`."""

import argparse
from pathlib import Path

from xr2ct.commands.options import add_command, add_files, add_machine
from xr2ct.errors import UserError


def add(commands: argparse._SubParsersAction) -> None:
    parser = add_command(
        commands,
        "reconstruct",
        "Reconstruct every case of some shards from its X-rays, or one case from image files.",
        """\
examples:
  xr2ct reconstruct --checkpoint results/train/a/model.pt --shards results/shards/*/test-*.h5 \\
                    --out results/reconstruct/a
  xr2ct reconstruct --checkpoint model.pt --pa pa.png --lat lat.dcm --geometry views.yaml --out ct.nii.gz

From shards: OUT/<case>/ct.nii.gz, label.nii.gz and OUT/index.json, in the world of the source CT: load both into one
viewer and they overlap. From images: OUT is the CT; label.nii.gz and labels.json (names) appear beside it. Volumes are
int16 HU and uint8 labels.

image files: PNG, JPEG, TIFF, DICOM, NIfTI (index (i, j) = column, row) or NPY; grey, one image each.
  orientation  never flipped: the head is up, a PA image has the patient's left on its right (as radiologists read it),
               a left lateral (LAT) the front on its left. A DICOM's PatientOrientation, where it has one, is followed.
  --geometry   where tube, detector and volume were (YAML; all keys: resources/two_images.md). Without it the images
               must show just what the detector of the model's training shows. For example:
                   {beam: cone, views: [PA, LAT], sdd_mm: 1000, sod_mm: 700, pixel_mm: 0.2}
  --intensity  line-integral  -log(I/I0), as in shards: 0 where nothing was in the way, rarely above 10
               transmission   I or I/I0, linear in exposure: I0 is --i0, or the 99.5th percentile of the image
               display        a windowed picture; set to the mean and SD that the X-rays of the training have. Bone is
                              bright (MONOCHROME1 of a DICOM is followed), or dark with --inverted
               auto           DICOM linear in exposure: transmission; other whole numbers: display; else line-integral
At the end the result is projected again and compared with the images: a large difference warns that something is wrong
with them or their geometry, or that the model has not seen such a patient.""",
    )
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="model.pt of a training")
    add_files(parser, "--shards", "cases to reconstruct", required=False)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="PATH",
        help="with shards: folder of this run, its name names the run; with images: the CT, a .nii.gz",
    )
    parser.add_argument(
        "--simulator",
        metavar="NAME",
        help="with shards: whose X-rays to use (default: those the model was trained on)",
    )
    parser.add_argument("--pa", type=Path, metavar="FILE", help="image of view PA")
    parser.add_argument("--lat", type=Path, metavar="FILE", help="image of view LAT, the left lateral")
    parser.add_argument(
        "--image", action="append", default=[], metavar="VIEW=FILE", help="image of another view; may be repeated"
    )
    parser.add_argument(
        "--geometry", type=Path, metavar="FILE", help="where the images were taken (default: as trained)"
    )
    parser.add_argument(
        "--intensity",
        choices=("auto", "line-integral", "transmission", "display"),
        default="auto",
        help="what the pixels of the images mean",
    )
    parser.add_argument("--i0", type=float, metavar="X", help="transmission: pixel value of the open field, 1 for I/I0")
    parser.add_argument("--inverted", action="store_true", help="display: bone is dark")
    parser.add_argument(
        "--backend",
        metavar="NAME",
        help="of the hash grid: auto, reference, lattice, native, triton or tinycudann, which read the same parameters "
        "(default: as trained, or auto where that is not present)",
    )
    add_machine(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    images = image_options(options)
    for_images = [f"--{name}" for name in ("geometry", "i0") if getattr(options, name) is not None]
    for_images += ["--inverted"] if options.inverted else []
    for_images += ["--intensity"] if options.intensity != "auto" else []
    if bool(images) == bool(options.shards):
        found = "both" if images else "neither"
        raise UserError(f"--shards and images: {found} given; expected one of them. Give --shards, or --pa and --lat.")
    if options.shards and for_images:
        raise UserError(f"{' '.join(for_images)} with --shards, which hold all this themselves. Leave it out.")
    if images and options.simulator:
        raise UserError("--simulator with images; expected it with --shards only. Leave it out.")
    machine = {"backend": options.backend, "device": options.device, "threads": options.threads}
    if options.shards:
        from xr2ct.reconstruct import reconstruct

        reconstruct(
            checkpoint=options.checkpoint,
            shards=options.shards,
            out=options.out,
            simulator=options.simulator,
            **machine,
        )
        return
    from xr2ct.two_images import reconstruct_images

    reconstruct_images(
        checkpoint=options.checkpoint,
        images=images,
        out=options.out,
        geometry=options.geometry,
        intensity=options.intensity,
        i0=options.i0,
        inverted=options.inverted,
        **machine,
    )


def image_options(options: argparse.Namespace) -> dict[str, Path]:
    """Image file by view name."""
    pairs = [(name, path) for name, path in (("PA", options.pa), ("LAT", options.lat)) if path]
    for text in options.image:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise UserError(f"--image {text!r}; expected VIEW=FILE, for example --image AP=ap.png. Correct it.")
        pairs.append((name, Path(path)))
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"view {name} has {names.count(name)} images; expected one. Remove the others.")
    return dict(pairs)
