"""What a disk refuses, as one line: no space, no right, no such place."""

import errno

FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)
NO_PLACE = (errno.ENOTDIR, errno.ENOENT, errno.EEXIST, errno.EISDIR)


def of_disk(error: OSError) -> str | None:
    """One line of an error that the user can mend; None for any other."""
    if error.errno in FULL:
        return f"no space left on the device for {error.filename or 'a file'}; free some"
    if error.errno in REFUSED and error.filename:
        return f"{error.filename}: {error.strerror}; get the right to it, or say another place"
    if error.errno in NO_PLACE and error.filename:
        return f"{error.filename}: {error.strerror}; say another place"
    return None
