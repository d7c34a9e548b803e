"""Rows as `xr2ct evaluate` and `xr2ct judge` write them, with invented numbers."""

PSNR = "psnr_window-1000to1500_range1"


def row(
    case, subject, value, metric=PSNR, structure="", split="test", model="a", reason="", simulator="parallel", seed=""
):
    return {
        "case": case,
        "subject": subject,
        "split": split,
        "simulator": simulator,
        "model": model,
        "seed": str(seed),
        "metric": metric,
        "structure": structure,
        "value": str(value),
        "unit": "dB" if metric == PSNR else "1",
        "reason": reason,
    }


def all_metrics(case, subject, **changes):
    values = {PSNR: 20.123, "ssim3d_gauss11_sigma1.5_window-1000to1500_range1": 0.5, "mae_window-1000to1500": 99.96}
    rows = [row(case, subject, value, metric, **changes) for metric, value in values.items()]
    return [
        *rows,
        row(case, subject, 0.25, "dice", "heart", **changes),
        row(case, subject, 7, "hd95", "heart", **changes),
    ]
