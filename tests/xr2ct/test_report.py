"""The page: safe, self-contained, complete and with its pictures the right way round."""

import base64
import html
import html.parser
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from tests.phantoms import phantom_case, write_phantom_shard
from tests.xr2ct import scores
from tests.xr2ct.runs import brighter, write_run
from xr2ct import report as report_module
from xr2ct.__main__ import main
from xr2ct.curves import HEIGHT, WIDTH, read_curve
from xr2ct.errors import UserError
from xr2ct.evaluate import COLUMNS as SCORE_COLUMNS
from xr2ct.evaluate import evaluate
from xr2ct.gallery import case_pictures, hang
from xr2ct.pictures import DISPLAY_HU, ERROR_HU, colour, error_map, grey, labels, png
from xr2ct.planes import PLANES, cut
from xr2ct.reconstructions import read_index
from xr2ct.report import report
from xr2ct.shards import Shard
from xr2ct.tables import write_csv

HOSTILE = "</script><img src=x onerror=alert(1)>"
FAMILY = "same patient, new deformation: shows that the machinery works, not that it generalises"


def make_experiment(folder, case_id="p0", n_family=2):
    """Two shards, a run with labels and one without, training logs and a cohort: the arguments of `report`."""
    test = write_phantom_shard(folder / "test.h5", [phantom_case(case_id, shift=(0.05, 0, 0.02))], split="test")
    relatives = [phantom_case(f"f{i}", subject="s", derived_from="t0") for i in range(n_family)]
    family = write_phantom_shard(folder / "family.h5", relatives, split="family")
    arguments = {"shards": [family, test], "evaluations": [], "reconstructions": [], "training": []}
    for name, change in (("bright", brighter), ("plain", lambda case: (case.ct_hu - np.int16(30), None))):
        parts = [
            Path(write_run(folder / name / split, Shard(path), change)) for split, path in (("t", test), ("f", family))
        ]
        index = merge(parts, folder / name / "index.json", name)
        out = folder / f"{name}.csv"
        evaluate(reconstructions=index, shards=[family, test], window=(-1000.0, 1500.0), out=out)
        log = folder / "train" / name / "train.csv"
        log.parent.mkdir(parents=True)
        log.write_text("step,seconds,loss,watch_psnr_db,watch_dice\n0,0,1,,\n10,60,0.1,20,0.5\n20,120,0.01,25,0.6\n")
        arguments["evaluations"].append(out)
        arguments["reconstructions"].append(index)
        arguments["training"].append(log)
    arguments["cohort"] = folder / "cohort"
    arguments["cohort"].mkdir()
    (arguments["cohort"] / "cases.tsv").write_text("case\tdataset\tsplit\np0\tphantom\ttest\n")
    (arguments["cohort"] / "quarantine.tsv").write_text(
        "case\tdataset\tstage\tcode\treason\n<b>bad</b>\tphantom\tingest\tE_GZIP_CRC\tCRC is wrong\n"
    )
    return arguments | {"out": folder / "report" / "index.html"}


def merge(parts, path, run):
    indices = [json.loads(part.read_text()) for part in parts]
    cases = [
        entry | {key: entry[key] and f"{part.parent.name}/{entry[key]}" for key in ("ct", "label")}
        for part, index in zip(parts, indices, strict=True)
        for entry in index["cases"]
    ]
    path.write_text(json.dumps(indices[0] | {"cases": cases, "run": run}))
    return path


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiment")
    arguments = make_experiment(folder)
    text = report(**arguments, picture=folder / "example.png", cases_open=1)
    return arguments, text, arguments["out"].read_text(encoding="utf-8")


class Reader(html.parser.HTMLParser):
    """All tags with their attributes, and the visible text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


def assert_safe(page):
    reader = Reader(page)
    policy = [a["content"] for tag, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    for tag, attributes in reader.tags:
        assert tag not in {"script", "iframe", "object", "embed", "link", "base", "form"}
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        if tag == "img":
            assert attributes["src"].startswith("data:image/png;base64,")
        if tag == "a":
            assert attributes["href"].startswith("#")
    assert not re.search(r"https?://|url\(|@import", page)
    return reader


def test_the_page_is_self_contained_and_runs_nothing(experiment):
    _, _, page = experiment
    assert_safe(page)
    anchors = set(re.findall(r'href="#(\w+)"', page))
    assert anchors and anchors <= set(re.findall(r'id="(\w+)"', page))


def test_hostile_names_stay_text(tmp_path):
    arguments = make_experiment(tmp_path, case_id=HOSTILE, n_family=1)
    report(**arguments)
    page = arguments["out"].read_text(encoding="utf-8")
    reader = assert_safe(page)
    assert HOSTILE in "".join(reader.text) and "<b>bad</b>" in "".join(reader.text)


def test_the_page_says_what_ran_on_which_data(experiment):
    _, _, page = experiment
    text = " ".join(" ".join(Reader(page).text).split())
    for said in (
        *("bright", "plain", "mean, from parallel", "phantom", "CC0-1.0", "made by the tests"),
        *("1 case, 1 patient", "2 cases, 1 patient", "deformed from t0"),
        *("parallel rays", "focal spot 900 mm from the detector", "26 x 30 pixels of 4 x 4 mm", "energy_kev", "60.0"),
        *("E_GZIP_CRC", "CRC is wrong", "psnr_window-1000to1500_range1", "RAS millimetres", "numpy"),
        *("ball", "rod", "plate", "1 patient, no interval", "the model predicts no labels", "20 steps in 2.0 minutes"),
    ):
        assert said in text, said


def test_every_split_is_explained_wherever_its_numbers_or_pictures_stand(experiment):
    _, text, page = experiment
    main = page[: page.index('id="conventions"')]
    tables = 2  # the results and the structures of that split
    assert main.count(FAMILY) == tables + 1 + 2  # its group of cases and each of its two cases
    assert main.count("unseen real patients") == tables + 1 + 1
    assert FAMILY in text and "unseen real patients" in text


def test_the_summary_lies_beside_the_page_and_is_returned(experiment):
    arguments, text, _ = experiment
    summary = (arguments["out"].parent / "summary.csv").read_text().splitlines()
    (line,) = [line for line in summary if line.startswith("family,parallel,bright,mae_window-1000to1500,")]
    assert line.split(",")[5:7] == ["50", "0"] and line.split(",")[10:12] == ["2", "1"]
    assert re.search(r"^family +parallel +bright .* 50\.0 +1\.000 +3 +0\.0 +2 / 1$", text, re.MULTILINE)
    assert text.index("test") < text.index("family")
    differences = (arguments["out"].parent / "differences.csv").read_text().splitlines()
    (line,) = [line for line in differences if line.startswith("family,parallel,plain,parallel,bright,mae_")]
    (plain,) = [line for line in summary if line.startswith("family,parallel,plain,mae_window-1000to1500,")]
    assert float(line.split(",")[7]) == pytest.approx(float(plain.split(",")[5]) - 50) and "-34.9107" in line
    assert re.search(r"^family +parallel +plain - bright .* -34\.9 +- +- +- +2 / 1$", text, re.MULTILINE)


def test_differences_stand_in_the_table_of_their_split(experiment):
    _, _, page = experiment
    text = " ".join(Reader(page[page.index('id="results"') :].split("</table>")[0]).text)
    places = [text.index(word) for word in ("test", "bright", "plain", "plain - bright", "family")]
    assert places == sorted(places) and text.count("plain - bright") == 2


def test_open_and_folded_cases(experiment):
    _, _, page = experiment
    assert page.count("<summary>f1</summary>") == 1 and "<summary>f0</summary>" not in page
    assert page.count('class="case"') == 3


def test_cases_beyond_the_pictured_ones_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(report_module, "PICTURED_PER_SPLIT", 1)
    arguments = make_experiment(tmp_path, n_family=3)
    report(**arguments, cases_open=1)
    page = arguments["out"].read_text(encoding="utf-8")
    assert "2 more cases of this split are evaluated but not pictured" in page and page.count('class="case"') == 2


def test_the_same_files_make_the_same_page(experiment, tmp_path):
    arguments, _, page = experiment
    report(**(arguments | {"out": tmp_path / "again.html"}), cases_open=1)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


def make_seeds(folder):
    """Runs `plain` (no seed) and `bright` with seeds 1 and 2, judged in part: the arguments of `report`."""
    shard = write_phantom_shard(
        folder / "family.h5", [phantom_case(f"f{i}", subject="s") for i in range(4)], split="family"
    )
    arguments = {"shards": [shard], "evaluations": [], "reconstructions": [], "out": folder / "report.html"}
    for name, error in (("plain", 30), ("bright-seed1", 40), ("bright-seed2", 60)):
        index = write_run(
            folder / name,
            Shard(shard),
            lambda case, error=error: (case.ct_hu + np.int16(error), case.label),
            model="spider",
        )
        out = folder / f"{name}.csv"
        evaluate(reconstructions=index, shards=[shard], window=(-1000.0, 1500.0), out=out)
        arguments["evaluations"].append(out)
        arguments["reconstructions"].append(index)
    judged = [
        scores.row(f"f{i}", "s", 0.6, "nnunet-dice", "ball", "family", "bright", seed=s)
        for i in range(4)
        for s in (1, 2)
    ]
    judged += [
        scores.row(f"f{i}", "s", 0.8, "nnunet-dice", "ball", "family", "true CT", simulator="") for i in range(4)
    ]
    write_csv(folder / "judged.csv", SCORE_COLUMNS, judged)
    arguments["evaluations"].append(folder / "judged.csv")
    return arguments


NOTE = "one patient's anatomy: intervals over deformations, not patients"


def test_seeds_are_one_run_and_tables_have_sections(tmp_path):
    arguments = make_seeds(tmp_path)
    text = report(**arguments, tables=[("Two & one", ["bright", "plain"]), ("Alone", ["plain"])])
    page = arguments["out"].read_text(encoding="utf-8")
    reader = assert_safe(page)
    assert "bright-seed" not in page and "2 runs (plain, bright)" in " ".join("".join(reader.text).split())
    assert page.count('class="case"') == 4 and len(re.findall('class="name"><b>bright</b>', page)) == 4
    assert re.search(
        r"^family +parallel +bright +\S+ \+- \S+ \[.* 50\.0 \+- 14\.1 \[50\.0, 50\.0\]", text, re.MULTILINE
    )
    assert (
        text.count("\nTwo & one\n") == 1 and text.count(NOTE) == 3 + 1
    )  # the tables and the structures that nnU-Net finds
    sections = [part.split("</section>")[0] for part in page.split("<section ")]
    first, second = [part for part in sections if part.startswith('id="table')]
    shown = " ".join("".join(Reader("<" + first).text).split())
    for said in (
        "Two & one",
        " (seeds)",
        "plain - bright",
        "75 % of true CT",
        "PSNR inside dB",
        "dashed",
    ):
        assert said in shown, said
    own, judged = first.split("<h3>what a segmenter finds in the reconstructions")[:2]
    assert "<b>true CT</b>" in judged and "<b>true CT</b>" not in own and "nnU-Net" not in own
    assert shown.index("bright") < shown.index("plain") and "PSNR inside" not in sections[1]
    assert "bright" not in second and NOTE in html.unescape(second) and 'href="#table2"' in page
    assert first.count("<svg") == 6  # PSNR, SSIM, Dice, PSNR inside and outside, nnU-Net Dice
    assert first.count("stroke-dasharray") == 1 and second.count("<svg") == 5
    assert html.unescape(page[: page.index('id="conventions"')]).count(NOTE) == 2 + 2 + 2 * 3
    summary = (tmp_path / "summary.csv").read_text().splitlines()
    assert "± 14.1 (seeds)" in page[: page.index('id="table1"')]
    (line,) = [line for line in summary if line.startswith("family,parallel,bright,mae_")]
    assert line.split(",")[14:16] == ["2", "14.1421356"]


def test_baselines_are_known_by_their_model_and_stand_in_every_table(tmp_path):
    arguments = make_seeds(tmp_path)
    index = json.loads(arguments["reconstructions"][0].read_text())  # of `plain`
    arguments["reconstructions"][0].write_text(json.dumps(index | {"model": "nearest"}))
    text = report(**arguments, tables=[("Alone", ["bright"])])
    section = arguments["out"].read_text(encoding="utf-8").split('id="table1"')[1].split("</section>")[0]
    for shown in (text[text.index("\nAlone\n") :], section):
        assert shown.index("bright") < shown.index("plain") and "plain - bright" in shown


def test_every_structure_has_its_chamfer_distance_and_the_judged_ones_are_printed(tmp_path):
    arguments = make_seeds(tmp_path)
    text = report(**arguments)
    page = arguments["out"].read_text(encoding="utf-8")
    own, judged = (part.split("</details>")[0] for part in page.split("<details><summary>Per structure, ")[1:])
    for table, name, first in ((own, "plain", "Dice"), (judged, "bright", "nnU-Net Dice")):
        assert table.startswith(f"family: {first}, HD95 and Chamfer in mm</summary>")
        assert f'{name}: Dice</th><th class="n">HD95 mm</th><th class="n">Chamfer mm</th>' in table
    ball = next(part for part in own.split("<tr>") if part.startswith("<td>ball</td>"))
    assert re.findall(r'<td class="n">(\S+?)<', ball) == ["1.000", "0.0", "0.00"] * 2
    assert re.search(r"^Dice +ball +0\.600 +0\.800$", text, re.MULTILINE) and "every structure as nnU-Net" in text


def test_metrics_of_other_papers_have_a_section_of_their_own(tmp_path):
    arguments = make_seeds(tmp_path)
    plain = report(**arguments)
    page = arguments["out"].read_text(encoding="utf-8")
    assert 'id="legacy"' not in page and not (tmp_path / "legacy.csv").exists()
    rows = [scores.row(f"f{i}", "s", 20 + i, "psnr_x2ct4095", split="family", model="plain") for i in range(4)]
    rows += [scores.row(f"f{i}", "s", 3, "chamfer_sum", "ball", "family", "plain") | {"unit": "mm"} for i in range(4)]
    write_csv(tmp_path / "legacy_scores.csv", SCORE_COLUMNS, rows)
    arguments["evaluations"].append(tmp_path / "legacy_scores.csv")
    text = report(**arguments)
    section = arguments["out"].read_text(encoding="utf-8").split('<section id="legacy">')[1].split("</section>")[0]
    shown = html.unescape(" ".join("".join(Reader(section).text).split()))
    for said in (FAMILY, NOTE, "psnr_x2ct4095", "21.500", "chamfer_sum in mm", "3.00", "4 / 1"):
        assert said in shown, said
    assert section.count("<tr>") == 1 + 2  # the head and one row per metric: structures as their mean
    assert text.startswith(plain) and text.count("psnr_x2ct4095") == 1
    assert (tmp_path / "legacy.csv").read_text().count("chamfer_sum") == 2  # the structure and the mean


def test_the_pictured_seed_has_its_own_numbers(tmp_path):
    arguments = make_seeds(tmp_path)
    report(**arguments)
    page = arguments["out"].read_text(encoding="utf-8")
    (row, *_) = re.findall('class="name"><b>bright</b>.*?</div>', page, re.DOTALL)
    assert "MAE 40.0 HU" in row and "nnU-Net Dice 0.600" in row
    (truth, *_) = re.findall('class="name"><b>true CT</b>.*?</div>', page, re.DOTALL)
    assert "nnU-Net Dice 0.800" in truth


def test_tables_are_asked_for_on_the_command_line(tmp_path, capsys):
    arguments = make_seeds(tmp_path)
    words = ["report", "--out", str(arguments["out"])]
    for name in ("shards", "evaluations", "reconstructions"):
        words += [f"--{name}", *map(str, arguments[name])]
    assert main([*words, "--table", "Both=plain,bright", "--table", "One=bright"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("\nBoth\n") < printed.index("\nOne\n")
    assert main([*words, "--table", "Both=plain,spider"]) == 2
    assert "names run 'spider', expected runs of the evaluations: plain, bright" in capsys.readouterr().err


def test_little_is_needed(tmp_path):
    arguments = make_experiment(tmp_path, n_family=1)
    report(**(arguments | {"training": [], "cohort": None}))
    page = arguments["out"].read_text(encoding="utf-8")
    assert "No training log was given" in page and 'id="quarantine"' not in page


def test_the_picture_for_a_readme(experiment):
    arguments, _, _ = experiment
    with Image.open(arguments["out"].parents[1] / "example.png") as poster:
        assert poster.size == (8 + 4 * 264, 34 + 3 * 264 + 34)  # X-rays, truth and two runs
        pixels, coloured = np.asarray(poster.convert("L")), np.asarray(poster.convert("RGB")).astype(int)
    assert all(pixels[34:550, 8 + 264 * n : 264 + 264 * n].std() > 20 for n in range(4))
    hanging = hang(Shard(arguments["shards"][1]).case(0))  # of split test, which comes first
    for row, plane in enumerate(PLANES[1:]):
        expected = np.asarray(grey(cut(hanging.ct_hu, plane, hanging.at), *DISPLAY_HU)).astype(float)
        height, width = (round(256 * n / max(expected.shape)) for n in expected.shape)
        top, left = 34 + 264 * row + (256 - height) // 2, 8 + 264 + (256 - width) // 2
        tile = Image.fromarray(pixels[top : top + height, left : left + width]).resize(expected.shape[::-1])
        assert np.corrcoef(np.asarray(tile).ravel(), expected.ravel())[0, 1] > 0.95
    column = slice(8 + 264, 264 + 264)
    plain, labelled = coloured[34 : 34 + 256, column], coloured[34 + 2 * 264 : 34 + 2 * 264 + 256, column]
    label = cut(hanging.label, PLANES[1], hanging.at)
    height, width = (round(256 * n / max(label.shape)) for n in label.shape)
    expected = np.zeros((256, 256), bool)
    top, left = (256 - height) // 2, (256 - width) // 2
    expected[top : top + height, left : left + width] = np.asarray(Image.fromarray(label > 0).resize((width, height)))
    assert 0 < expected.sum() < expected.size
    assert ((np.abs(labelled - plain).max(axis=2) > 0) == expected).mean() > 0.99
    bright, plain = (coloured[34 + 2 * 264 : 34 + 2 * 264 + 256, 8 + 264 * n : 264 + 264 * n] for n in (2, 3))
    assert np.abs(bright - labelled).max() < 20  # the same labels on 50 HU more
    assert (plain == 255).all()  # a run without labels
    legend = coloured[34 + 2 * 264 : 34 + 2 * 264 + 256, 8:264]
    for value in np.unique(label[label > 0]).tolist():
        assert (legend == ImageColor.getrgb(colour(value))).all(axis=2).any(), value


def decode(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A case whose one dense voxel sits to the patient's right, behind and at the head, and its pictures."""
    folder = tmp_path_factory.mktemp("shown")
    case = phantom_case("p")
    case.ct_hu[...], case.label[...] = -1000, 0
    case.ct_hu[16, 5, 24], case.label[16, 5, 24] = 700, 2
    shard = Shard(write_phantom_shard(folder / "p.h5", [case]))

    def change(case):
        ct_hu = case.ct_hu.copy()
        ct_hu[16, 5, 24] -= 1000
        ct_hu[16, 6, 24] += 1000
        return ct_hu, np.where(case.label == 2, 1, 0).astype(np.uint8)

    index = write_run(folder / "run", shard, change, structures=["background", "rod", "ball"])
    return case_pictures(shard, 0, [read_index(index)])


def test_slices_are_hung_as_radiologists_do(shown):
    truth = shown.rows[0]
    places = [tuple(np.argwhere(np.asarray(decode(p.image)) == 255)[0]) for p in truth.slices]
    # axial 24 rows x 28 columns, coronal 20 x 28, sagittal 20 x 24: behind is low, patient right is left, head is up
    assert places == [(23 - 5, 27 - 24), (19 - 16, 27 - 24), (19 - 16, 23 - 5)]
    assert [(p.edges.left, p.edges.top) for p in truth.slices] == [("R", "A"), ("R", "S"), ("A", "S")]


def test_labels_lie_over_their_voxels_in_the_colour_of_the_legend(shown):
    truth, run = shown.rows
    expected = tuple(int(colour(2)[i : i + 2], 16) for i in (1, 3, 5))
    for row in (truth, run):  # the run calls the rod 1, the shard calls it 2
        overlay = np.asarray(decode(row.slices[0].labels).convert("RGBA"))
        assert tuple(overlay[18, 3][:3]) == expected and overlay[18, 3, 3] > 0
        assert (overlay[..., 3] > 0).sum() == 1


def test_errors_are_blue_where_too_low_and_orange_where_too_high(shown):
    image = np.asarray(decode(shown.rows[1].errors[0].image).convert("RGB")).astype(int)
    low, high, equal = image[18, 3], image[17, 3], image[0, 0]
    assert low[2] > low[0] + 60 and high[0] > high[2] + 60 and equal.max() < 20
    scale = np.asarray(error_map(np.array([[-ERROR_HU, -ERROR_HU * 3, 0, ERROR_HU, ERROR_HU * 3]])).convert("RGB"))[0]
    assert (scale[0] == scale[1]).all() and (scale[3] == scale[4]).all() and scale[2].max() < 20


def test_xrays_are_unflipped_dense_is_bright_and_sides_are_marked(shown):
    assert [p.caption for p in shown.xrays] == ["cone PA", "cone LAT", "parallel PA", "parallel LAT"]
    phantom = phantom_case("p")  # the X-rays were simulated from the phantom before it was emptied
    for picture, stored in zip(shown.xrays[2:], phantom.xrays["parallel"].image, strict=True):
        grey = np.asarray(decode(picture.image)).astype(float)
        assert grey.shape == stored.shape and np.corrcoef(grey.ravel(), stored.ravel())[0, 1] > 0.999
    assert [p.edges.left + p.edges.right + p.edges.top for p in shown.xrays] == ["RLS", "APS", "RLS", "APS"]


def test_the_display_window_is_fixed():
    black, white = DISPLAY_HU
    values = np.asarray(grey(np.array([[black - 500, black, (black + white) / 2, white, white + 500]]), *DISPLAY_HU))
    assert values.tolist() == [[0, 0, 128, 255, 255]]


def test_ignored_and_background_voxels_are_clear():
    image = Image.open(io.BytesIO(png(labels(np.array([[0, 255, 1, 21]], np.uint8))))).convert("RGBA")
    alpha = np.asarray(image)[0, :, 3]
    assert alpha[0] == alpha[1] == 0 and alpha[2] == alpha[3] > 0
    assert colour(1) == colour(21)


def test_a_missing_reconstruction_is_said_not_hidden(tmp_path):
    arguments = make_experiment(tmp_path, n_family=1)
    next((tmp_path / "bright").rglob("p0/ct.nii.gz")).unlink()
    report(**arguments)
    assert "not shown: file is missing" in arguments["out"].read_text(encoding="utf-8")


def test_a_picture_cut_is_the_slice_it_names():
    volume = np.arange(2 * 3 * 4).reshape(2, 3, 4)  # (x, y, z)
    at = np.array([1, 2, 3])
    assert [cut(volume, plane, at).shape for plane in PLANES] == [(3, 2), (4, 2), (4, 3)]
    assert [int(cut(volume, plane, at)[0, 0]) for plane in PLANES] == [volume[1, 2, 3]] * 3


def test_curves_by_hand(tmp_path):
    path = tmp_path / "spider" / "train.csv"
    path.parent.mkdir()
    path.write_text("step,seconds,loss,watch_psnr_db,watch_dice\n0,0,1,,\n10,30,0.1,20,\n20,90,0.01,,\n")
    curve = read_curve(path)
    assert (curve.run, curve.steps, curve.minutes) == ("spider", 20, 1.5)
    (chart,) = curve.charts  # one PSNR makes no line
    points = [tuple(map(float, point.split(","))) for point in chart.points.split()]
    assert [x for x, _ in points] == [0, WIDTH / 2, WIDTH]
    heights = [y for _, y in points]
    assert heights[1] == pytest.approx(HEIGHT / 2, abs=0.1)  # logarithmic: 0.1 is half way from 1 to 0.01
    assert heights[0] < heights[2]  # SVG counts downwards
    assert chart.last == "0.01"
    path.write_text("step,seconds\nx,0\n")
    with pytest.raises(UserError, match="train.csv: cannot be read"):
        read_curve(path)


def test_figures_are_embedded_under_their_names(tmp_path):
    arguments = make_experiment(tmp_path, n_family=1)
    figures = [tmp_path / "chest.png", tmp_path / "b&d.png"]
    for number, path in enumerate(figures):
        Image.fromarray(np.full((3, 5), 40 * number, np.uint8)).save(path)
    report(**arguments, figures=figures)
    page = arguments["out"].read_text()
    section = page[page.index('<section id="radiographs">') :].split("</section>")[0]
    assert re.findall("<summary>(.*?)</summary>", section) == ["chest", "b&amp;d"]
    embedded = [base64.b64decode(text) for text in re.findall('data:image/png;base64,([^"]+)', section)]
    assert embedded == [path.read_bytes() for path in figures]
    report(**arguments)
    assert "Simulated X-rays" not in arguments["out"].read_text()


def test_a_figure_that_is_no_png_is_refused_in_words(tmp_path):
    arguments = make_experiment(tmp_path, n_family=1)
    (tmp_path / "a.png").write_text("<svg>")
    with pytest.raises(UserError, match="a.png: is no PNG file. Give the PNG"):
        report(**arguments, figures=[tmp_path / "a.png"])
    with pytest.raises(UserError, match="gone.png: cannot be read"):
        report(**arguments, figures=[tmp_path / "gone.png"])
