"""Which runs and structures stand in the tables per structure."""

from tests.xr2ct.scores import row
from xr2ct.structure_tables import structure_tables
from xr2ct.summary import summarize


def three(case, dice, hd95, structure, prefix="", **changes):
    """Dice, HD95 and a Chamfer distance of a third of it."""
    values = {"dice": dice, "hd95": hd95, "chamfer": float(hd95) / 3}
    return [row(case, "s", value, f"{prefix}{metric}", structure, **changes) for metric, value in values.items()]


def test_judged_structures_have_a_table_of_their_own():
    rows = three("c", 0.9, 1, "heart", "nnunet-", model="true CT", simulator="")
    rows += [
        *three("c", 0.5, 9, "heart"),
        *three("c", 0.6, 8, "heart", "nnunet-"),
        *three("c", 0.7, 7, "liver", "nnunet-"),
    ]
    rows += three("c", "nan", "nan", "heart", model="fbp", reason="the model predicts no labels")
    own, judged = structure_tables(summarize(rows))
    assert (own.judge, own.runs, judged.judge, judged.runs) == ("", ["a"], "nnU-Net", ["a", "true CT"])
    assert [name for name, _ in judged.rows] == ["heart", "liver"]
    heart, liver = (cells for _, cells in judged.rows)
    assert [cell["dice"].mean for cell in heart] == [0.6, 0.9] and [cell["hd95"].mean for cell in heart] == [8, 1]
    assert liver[0]["hd95"].mean == 7 and liver[1] == {}
    assert liver[0]["chamfer"].mean == 7 / 3 and own.rows[0][1][0]["chamfer"].mean == 3
    assert own.rows[0][1][0]["dice"].mean == 0.5


def test_every_split_has_its_own():
    rows = [*three("c", 0.5, 9, "heart", split="family"), *three("c", 0.5, 9, "heart"), row("c", "s", 20)]
    assert [table.split for table in structure_tables(summarize(rows))] == ["test", "family"]
    assert structure_tables(summarize([row("c", "s", 20)])) == []
