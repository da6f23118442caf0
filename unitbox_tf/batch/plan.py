"""The plan of a job: which photos are in which shard, and by which settings they are searched.

A job is a folder, and may be stopped at any moment:

| file | contents |
|---|---|
| `batch.json` | the settings, and the place of each shard in `photos.jsonl` |
| `photos.jsonl` | the name of a photo in each line |
| `detections-00012.jsonl` | the rows of shard 12 |
| `problems-00012.jsonl` | the photos of shard 12 that could not be read; absent if there is none |

A shard is finished if it has its rows and no problems. Memory holds the names of the photos where the plan is made.
A worker reads the names of one shard.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from unitbox_tf.batch import storage
from unitbox_tf.detect import journal

PLAN_FILE = "batch.json"
PHOTOS_FILE = "photos.jsonl"
RESULTS = re.compile(r"(detections|problems)-\d{5}\.jsonl")
MANY = 100_000  # shards that have numbers of five digits


class Shard(NamedTuple):
    """A part of the photos, whose rows are in one file.

    Attributes:
        number: from 0.
        offset: of its first photo in `photos.jsonl`, in bytes.
        length: of its lines there, in bytes.
        photos: how many there are.
    """

    number: int
    offset: int
    length: int
    photos: int

    @property
    def rows_file(self) -> str:
        """The name of the file with its rows."""
        return f"detections-{self.number:05}.jsonl"

    @property
    def problems_file(self) -> str:
        """The name of the file with the photos that could not be read."""
        return f"problems-{self.number:05}.jsonl"

    def names(self, folder: storage.Folder) -> list[str]:
        """The names of its photos."""
        content = folder.read(PHOTOS_FILE, self.offset, self.length)
        return [json.loads(line) for line in content.splitlines()]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The shards of a job."""

    folder: storage.Folder
    shards: tuple[Shard, ...]

    @property
    def num_photos(self) -> int:
        """The number of all photos."""
        return sum(shard.photos for shard in self.shards)

    def left(self) -> list[Shard]:
        """The shards that are not finished: without rows, or with problems, which are tried again."""
        there = self.folder.names()
        return [
            shard
            for shard in self.shards
            if shard.rows_file not in there or shard.problems_file in there
        ]

    def with_problems(self) -> list[Shard]:
        """The shards with photos that could not be read."""
        there = self.folder.names()
        return [shard for shard in self.shards if shard.problems_file in there]

    def without_rows(self) -> list[Shard]:
        """The shards that no worker has looked at."""
        there = self.folder.names()
        return [shard for shard in self.shards if shard.rows_file not in there]


def open_plan(
    folder: storage.Folder, settings: Mapping[str, Any], names: Iterable[str], shard_size: int
) -> Plan:
    """The plan in `folder`, made or continued.

    Photos keep their shards. Photos that are new get new ones.

    Args:
        folder: of the job.
        settings: of detection.
        names: of the photos, each once.
        shard_size: how many photos a new shard has; the last one may have fewer.

    Raises:
        ValueError: the folder has results of other settings, or is damaged, or there are too many shards.
        OSError: it cannot be read or written.
    """
    there = folder.names()
    shards: list[Shard] = []
    content = b""
    known: set[str] = set()
    if PLAN_FILE in there:
        shards, content, known = _read(folder, settings)
    elif found := sorted(filter(RESULTS.fullmatch, there)):
        raise ValueError(
            f"{folder.path}: expected {PLAN_FILE} beside {found[0]}, by which a job goes on. Name another folder for "
            "the output, or delete these files"
        )
    lines = [json.dumps(name).encode() + b"\n" for name in names if name not in known]
    new = list(_cut(lines, len(shards), len(content), shard_size))
    if new:
        if new[-1].number >= MANY:
            raise ValueError(f"expected at most {MANY} shards: let each have more photos")
        # The plan comes last: without it, lines at the end of the list mean nothing.
        folder.write(PHOTOS_FILE, content + b"".join(lines))
        shards += new
        text = json.dumps({"settings": settings, "shards": shards})
        folder.write(PLAN_FILE, text.encode() + b"\n")
    return Plan(folder, tuple(shards))


def _cut(lines: list[bytes], number: int, offset: int, size: int) -> Iterator[Shard]:
    """New shards from a number and a byte of the list on."""
    for start in range(0, len(lines), size):
        part = lines[start : start + size]
        length = sum(map(len, part))
        yield Shard(number, offset, length, len(part))
        number, offset = number + 1, offset + length


def _read(
    folder: storage.Folder, settings: Mapping[str, Any]
) -> tuple[list[Shard], bytes, set[str]]:
    """An earlier plan, which must have the same settings: its shards, and the list of photos as bytes and as names."""
    try:
        plan = json.loads(folder.read(PLAN_FILE))
        earlier = dict(plan["settings"])
        shards = [Shard(*map(int, each)) for each in plan["shards"]]
        end = shards[-1].offset + shards[-1].length
        content = folder.read(PHOTOS_FILE, 0, end)
        known = {json.loads(line) for line in content.splitlines()}
        numbers = [shard.number for shard in shards]
        counts = {len(known), content.count(b"\n"), sum(shard.photos for shard in shards)}
        if numbers != list(range(len(shards))) or len(counts) > 1:
            raise ValueError("expected shards from 0 on, and the photos in them")
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise ValueError(
            f"{folder.path}: {PLAN_FILE} or {PHOTOS_FILE} is damaged. {journal.REMEDY}"
        ) from error
    journal.check_settings(folder.path, earlier, settings)
    return shards, content, known


def clear(folder: storage.Folder) -> None:
    """Deletes the files of a job, and last its plan: if it is stopped, a job is left that has more to do."""
    there = folder.names()
    if PLAN_FILE in there:
        folder.delete(sorted(filter(RESULTS.fullmatch, there)))
        folder.delete([PLAN_FILE])
        folder.delete([PHOTOS_FILE] if PHOTOS_FILE in there else [])
