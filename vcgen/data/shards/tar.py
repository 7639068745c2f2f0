"""Tar files of scenes: members in and out of a piece of bytes."""

import io
import tarfile

from vcgen.errors import UserError


def read_members(data: bytes) -> dict[str, bytes]:
    """The files in a piece of a plain tar, by name.

    Raises UserError for a member that is no plain file whose bytes lie in the piece (a link, a device, a file with
    holes, which could be of any size) and for a name that occurs twice; TarError or ValueError for what is no tar, or a
    compressed one."""
    members: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for member in tar:
            end = member.offset_data + member.size
            if (
                member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE)
                or member.issparse()
                or not member.offset_data <= end <= len(data)
            ):
                raise UserError(f"damaged: {member.name!r} is no plain file")
            if member.name in members:
                raise UserError(f"damaged: {member.name!r} is there twice")
            members[member.name] = data[member.offset_data : end]
    return members


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Append a member whose header holds nothing that varies between runs (time 0, user 0, mode 0644)."""
    header = tarfile.TarInfo(name)
    header.size = len(data)
    tar.addfile(header, io.BytesIO(data))
