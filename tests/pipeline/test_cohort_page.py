"""The page that says what was left out of a cohort and why."""

import re
from html.parser import HTMLParser

from pipeline.cohort_page import write_page


class Tables(HTMLParser):
    """Every table of a page as rows of cells."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.cell = [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        if self.cell:
            self.tables[-1][-1][-1] += data


def good(case, split="train", status=(3, 3), flags=()):
    about = {"case": case, "dataset": "mine", "split": split, "license": "CC-BY-4.0"}
    return about | {"label_status": list(status), "flags": list(flags)}


def bad(case, code, reason="cut off", **more):
    return {"case": case, "dataset": "mine", "stage": "ingest", "code": code, "reason": reason, **more}


def test_the_page_counts_what_goes_on_and_names_what_does_not(tmp_path):
    cases = [good("a"), good("b", status=(3, 0)), good("c", "test", flags=("TRUNC_FOV",))]
    lost = [bad("d", "E_GZIP_CRC", fetched_sha256="f" * 64), bad("e", "E_DIM", "<4-D>"), bad("f", "E_GZIP_CRC")]
    write_page(tmp_path / "index.html", cases, lost)
    text = (tmp_path / "index.html").read_text()
    assert "<h1>3 cases go on, 3 are left out</h1>" in text and "<4-D>" not in text
    splits, flags, codes, listed = Tables(text).tables
    assert splits[1:] == [["mine", "test", "CC-BY-4.0", "1", "1"], ["mine", "train", "CC-BY-4.0", "2", "1"]]
    assert flags[1:] == [["TRUNC_FOV", "the body is cut at the sides", "1"]]
    assert codes[1:] == [["ingest", "E_GZIP_CRC", "2"], ["ingest", "E_DIM", "1"]]
    assert [(row[0], row[3], row[4], row[5]) for row in listed[1:]] == [
        ("d", "E_GZIP_CRC", "cut off", "f" * 64), ("e", "E_DIM", "<4-D>", ""), ("f", "E_GZIP_CRC", "cut off", "")
    ]  # fmt: skip


def test_where_nothing_is_left_out_the_page_says_no_more(tmp_path):
    write_page(tmp_path / "index.html", [good("a")], [])
    text = (tmp_path / "index.html").read_text()
    assert re.findall(r"<h\d>(.*?)</h\d>", text) == ["1 cases go on, 0 are left out", "What goes on"]
