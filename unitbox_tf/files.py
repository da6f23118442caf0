"""Files: parts of them, and writing that leaves a whole file or none."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

_PARTIAL = re.compile(r"\.partial-[0-9a-f]{8}-(?P<whole>.+)")


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A new path beside `path`. At the end of the context, it takes the place of `path`; after an error it is deleted.

    If a program is stopped at any moment, either the old file is there or the new one, and it is whole.
    A folder takes the place of a folder in two steps; between them, the old one has a hidden name. The
    caller makes a file or a folder at the new path. Its name is hidden and ends with the name of `path`,
    so that writers find the suffix. Folders above are made.

    Raises:
        OSError: `path` is a folder and the caller made a file, or the other way round; nothing is lost.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _new_partial(path)
    try:
        yield partial
        if partial.is_dir() and path.is_dir() and not path.is_symlink():
            _replace_folder(path, partial)
        else:  # which refuses to put a file in the place of a folder
            os.replace(partial, path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def _replace_folder(path: Path, partial: Path) -> None:
    earlier = path.with_name(f".earlier-{uuid.uuid4().hex[:8]}-{path.name}")
    os.replace(path, earlier)
    try:
        os.replace(partial, path)
    except BaseException:
        os.replace(earlier, path)
        raise
    shutil.rmtree(earlier)


def _new_partial(path: Path) -> Path:
    return path.with_name(f".partial-{uuid.uuid4().hex[:8]}-{path.name}")


def whole_name(partial: Path) -> str | None:
    """The name of the file that `partial` was to become; None if it is not from `replacing`."""
    match = _PARTIAL.fullmatch(partial.name)
    return match["whole"] if match else None


def remove_partial(folder: Path) -> None:
    """Deletes the partial files that a killed program left in `folder`. No other program may write there meanwhile."""
    for path in list(folder.iterdir()):
        if whole_name(path) is None:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def write(path: str | Path, content: bytes | str) -> None:
    """Writes a whole file, text as UTF-8. An earlier file is replaced."""
    with replacing(path) as partial:
        partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def digest(path: str | Path) -> str:
    """SHA-256, in hexadecimal, of a file; for a folder, of the contents of all its files, sorted by path."""
    path, total = Path(path), hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as content:
                while block := content.read(1 << 20):
                    total.update(block)
    return total.hexdigest()


@dataclasses.dataclass(frozen=True)
class Part:
    """Bytes in the middle of a file: an image that lies in a shard with others."""

    path: Path
    offset: int
    length: int

    def read(self) -> bytes:
        """The bytes. Raises `OSError` if the file cannot be read or is too short."""
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offset)
            content = file.read(self.length)
            while len(content) < self.length:  # one call may return fewer
                more = file.read(self.length - len(content))
                if not more:
                    raise OSError(
                        f"{self.path}: expected {self.length} bytes at byte {self.offset}, "
                        f"the file ends after {len(content)}"
                    )
                content += more
        return content
