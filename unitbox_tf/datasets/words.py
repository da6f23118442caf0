"""The outcome of `inspect` in lines, for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from unitbox_tf.datasets.duplicates import Repeat
from unitbox_tf.problems import printable

if TYPE_CHECKING:
    from unitbox_tf.datasets.inspection import Inspection, Shown
    from unitbox_tf.datasets.summary import Summary

QUARTILES = "minimum, first quartile, median, third quartile, maximum"
NAMED = 5  # how many items of a kind are named; all are in the json


def table(found: Inspection) -> str:
    """Counts, with a column for each source; then sizes as shown, duplicates, suggestions and problems."""
    blocks = [
        _counts(found),
        _as_shown(found),
        _twice(found),
        _listed("unitbox fit would refuse this", found.obstacles),
        _listed("Worth knowing", found.remarks),
        _suggested(found),
        _listed("Problems", (f"{count} x {kind}" for kind, count in found.problems.counts.items())),
    ]
    return "\n\n".join(block for block in blocks if block)


def lines_up(rows: Sequence[Sequence[str]]) -> str:
    """Rows of the same length, the first column to the left, the others to the right."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def count_rows(found: Inspection) -> list[list[str]]:
    """The counts of each source and of all, with a header and the names of the counts."""
    columns: list[Summary] = [*found.sources]
    if len(found.sources) > 1:
        columns.append(found.total)
    columns += found.validation_sources
    if found.validation is not None and len(found.validation_sources) > 1:
        columns.append(found.validation)
    classes = found.class_names
    return [
        ["", *(printable(column.name) for column in columns)],
        ["images", *(str(column.images) for column in columns)],
        ["  without objects", *(_with_share(c.without_objects, c.images) for c in columns)],
        ["  width", *(_or_dash(column.widths) for column in columns)],
        ["  height", *(_or_dash(column.heights) for column in columns)],
        ["  objects in one", *(_or_dash(column.per_image) for column in columns)],
        ["objects", *(str(column.objects) for column in columns)],
        *(
            [f"  {printable(name)}", *(_of_class(column, name) for column in columns)]
            for name in classes
        ),
        ["  longer side", *(_or_dash(column.long_sides) for column in columns)],
        ["  shorter side", *(_or_dash(column.short_sides) for column in columns)],
        ["ignored objects", *(str(column.ignored) for column in columns)],
    ]


def _counts(found: Inspection) -> str:
    return f"{lines_up(count_rows(found))}\n\nSizes are in pixels: {QUARTILES}."


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def _with_share(count: int, total: int) -> str:
    return f"{count} ({count / total:.0%})" if total else str(count)


def _of_class(summary: Summary, name: str) -> str:
    count = summary.classes.get(name, 0)
    return f"{count} in {summary.images_of_classes[name]} images" if count else "0"


def shown_rows(found: Inspection) -> list[list[str]]:
    """The sizes as shown, with a header; without rows if there are none."""
    if not found.shown:
        return []
    limits = found.limits
    if limits is None:
        return [["", "longer side"], *([each.name, str(each.long_sides)] for each in found.shown)]
    header = [
        "",
        "longer side",
        f"short < {limits.stride}",
        f"short < {limits.smallest}",
        f"long > {limits.largest}",
        f"long > {limits.field}",
    ]
    return [header, *(_shown_row(each) for each in found.shown)]


def _shown_row(each: Shown) -> list[str]:
    shares = (each.unseen, each.small, each.large, each.beyond)
    return [
        each.name,
        str(each.long_sides),
        *("-" if share is None else f"{share:.1%}" for share in shares),
    ]


def _as_shown(found: Inspection) -> str:
    rows = shown_rows(found)
    if not rows:
        return ""
    return f"Objects as the network is shown them, in pixels\n{lines_up(rows)}\n{limits_in_words(found)}"


def limits_in_words(found: Inspection) -> str:
    """The sizes that the network can see, and the number of objects that it cannot."""
    limits = found.limits
    if limits is None:
        return f"What the backbone {found.config.model.backbone} can see is not known."
    text = (
        f"The confidence has a stride of {limits.stride} px: most objects with a shorter side below "
        f"{limits.smallest} px are missed. The distances see {limits.field} px: boxes longer than "
        f"{limits.largest} px get worse, and longer than {limits.field} px too small."
    )
    if found.unfit is not None:
        many, none = (f"{found.unfit:.1%} of the", "no") if found.unfit else ("All", "a")
        text += f" {many} objects have {limits.smallest} to {limits.largest} px at {none} scale of detection."
    return text


def duplicate_lines(found: Inspection) -> Iterator[tuple[str, Sequence[Repeat]]]:
    """Each kind of duplicates in words, with its pairs."""
    twice = found.duplicates
    kinds = (
        ("validation images", "a training image", twice.shared),
        ("training images", "an earlier one", twice.training),
        ("validation images", "an earlier one", twice.validation),
    )
    for images, others, repeats in kinds:
        same = [each for each in repeats if each.distance is None]
        near = [each for each in repeats if each.distance is not None]
        if same:
            yield f"{images} with the bytes of {others}: {len(same)}", same
        if near:
            yield f"{images} that look nearly like {others} (look at them): {len(near)}", near


def flat_line(found: Inspection) -> str:
    """The images of one colour in words; empty if there are none."""
    flat = [found.annotations[index].where for index in found.duplicates.flat]
    if not flat:
        return ""
    more = f" and {len(flat) - NAMED} more" if len(flat) > NAMED else ""
    return f"images of one colour, compared by their bytes alone: {', '.join(flat[:NAMED])}{more}"


def _twice(found: Inspection) -> str:
    places = [annotation.where for annotation in found.annotations]
    lines = []
    for text, repeats in duplicate_lines(found):
        lines.append(text)
        lines += [f"  {places[each.image]}: {places[each.other]}" for each in repeats[:NAMED]]
        lines += [f"  and {len(repeats) - NAMED} more"] if len(repeats) > NAMED else []
    if found.duplicates.flat:
        lines.append(flat_line(found))
    if not found.duplicates.compared:
        lines.append("Only bytes were compared: near-duplicates were not looked for")
    return _listed("Duplicates", lines or ["none"])


def _suggested(found: Inspection) -> str:
    if not found.suggestions:
        return ""
    reasons = [f"{each.option}: {each.reason}" for each in found.suggestions]
    return _listed("Suggested settings, from the training images", [*reasons, found.options])


def _listed(title: str, lines: Iterable[str]) -> str:
    found = [f"  {printable(line)}" for line in lines]
    return "\n".join([title, *found]) if found else ""
