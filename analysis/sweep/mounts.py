"""Which file system a path lies on, where the system says so."""

from __future__ import annotations

import os
from pathlib import Path

NETWORK = frozenset(
    """
    nfs nfs4 cifs smb3 smbfs ncpfs afs coda lustre gpfs beegfs ceph glusterfs panfs pvfs2 orangefs wekafs 9p
    fuse.sshfs fuse.glusterfs fuse.ceph fuse.cephfs fuse.beegfs fuse.s3fs fuse.rclone fuse.gcsfuse fuse.juicefs
    """.split()
)
"""Kinds of file systems whose files other machines see."""


def network_file_system(path: str | os.PathLike[str], mounts: str | None = None) -> str | None:
    """The kind of network file system that a path lies on; None for a local or unknown one.

    Args:
        path: a file or folder, there or not.
        mounts: the text of /proc/self/mountinfo; by default this process's.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
    target, longest, kind = os.path.realpath(path), -1, ""
    for line in mounts.splitlines():
        before, separator, after = line.partition(" - ")
        if not separator or len(before.split()) < 5:
            continue
        # octal escapes stand for spaces, tabs and newlines
        point = before.split()[4].encode("latin-1", "replace").decode("unicode_escape")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:  # the last of equal ones covers those before
            longest, kind = len(point), after.split()[0]
    return kind if kind in NETWORK else None
