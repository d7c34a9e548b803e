"""After a power cut Snakemake leaves its folder locked; this tells a dead run's lock from a living one's."""

from __future__ import annotations

import fcntl
import socket
import sys
from pathlib import Path
from typing import IO


def hold_run(folder: Path) -> IO[str] | None:
    """Claim a working folder for this process and drop the locks of a run that died in it on this machine.

    The claim is an flock on .snakemake/xr2ct.run, which the kernel releases with the process, however it ends. None if
    another run is alive: then Snakemake's own locks stay and it explains itself. Keep the returned handle.
    """
    path = folder / ".snakemake" / "xr2ct.run"
    path.parent.mkdir(exist_ok=True)
    handle = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return None
    handle.seek(0)
    before = handle.read().strip()
    stale = sorted((folder / ".snakemake" / "locks").glob("*.lock"))
    if stale and before == socket.gethostname():
        print(
            "note: an earlier run here was killed; its locks are dropped and its half-made files made anew.",
            file=sys.stderr,
        )
        for lock in stale:
            lock.unlink()
    handle.seek(0)
    handle.truncate()
    handle.write(socket.gethostname())
    handle.flush()
    return handle
