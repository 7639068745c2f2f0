"""Tar files of scenes: members in and out of a piece of bytes."""

import io
import tarfile

from webdataset.tariterators import tar_file_iterator


def read_members(data: bytes) -> dict[str, bytes]:
    """The files in a piece of a tar, by name. Raises TarError or ValueError for what is none."""
    return {member["fname"]: member["data"] for member in tar_file_iterator(io.BytesIO(data))}


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Append a member whose header holds nothing that varies between runs (time 0, user 0, mode 0644)."""
    header = tarfile.TarInfo(name)
    header.size = len(data)
    tar.addfile(header, io.BytesIO(data))
