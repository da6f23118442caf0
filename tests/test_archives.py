import zipfile

import pytest

from unitbox_tf import archives
from unitbox_tf.limits import TooLarge


def known(name):
    return name.startswith("a")


def archive(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def test_members_are_read_and_stay_in_memory(tmp_path):
    path = archive(tmp_path / "a.zip", [("a", b"one"), ("a/b", b"two")])
    assert archives.read(path, 1000, known) == {"a": b"one", "a/b": b"two"}
    path.write_bytes(b"something before" + path.read_bytes())
    assert archives.read(path, 1000, known) == {"a": b"one", "a/b": b"two"}
    assert [each.name for each in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "a/../../evil", "\\evil", "evil", "b/../a", "a/.."]
)
def test_a_member_of_another_name_is_refused(name, tmp_path):
    folder = tmp_path / "inside"
    folder.mkdir()
    path = archive(folder / "a.zip", [("a", b"one"), (name, b"evil")])
    with pytest.raises(archives.Unusable, match=r"a\.zip: .*: such files do not belong there"):
        archives.read(path, 1000, known)
    assert not list(tmp_path.rglob("evil"))


def test_a_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("a")
    link.external_attr = 0o120777 << 16
    path = archive(tmp_path / "a.zip", [(link, "/etc/passwd")])
    with pytest.raises(archives.Unusable, match="such files do not belong there"):
        archives.read(path, 1000, known)


def test_a_compressed_member_is_refused(tmp_path):
    path = archive(tmp_path / "a.zip", [("a", bytes(10**6))], compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(archives.Unusable, match="'a' in the archive: expected a stored member"):
        archives.read(path, 10**6, known)


def test_a_member_that_is_there_twice_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        path = archive(tmp_path / "a.zip", [("a", b"one"), ("a", b"two")])
    with pytest.raises(archives.Unusable, match="is there twice"):
        archives.read(path, 1000, known)


def test_an_encrypted_member_is_refused(tmp_path):
    path = archive(tmp_path / "a.zip", [("a", b"one")])
    content = bytearray(path.read_bytes())
    for start, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(start) + at] |= 1
    path.write_bytes(content)
    with pytest.raises(archives.Unusable, match="expected no encryption"):
        archives.read(path, 1000, known)


def test_members_that_share_their_bytes_are_refused(tmp_path):
    """As in zip bombs without recursion: many entries of one large member."""
    path = archive(tmp_path / "a.zip", [("a", bytes(10_000))])
    content = path.read_bytes()
    start = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    entry, last = content[start:end], bytearray(content[end:])
    names = b"bcdefgh"
    many = b"".join(entry[:46] + bytes([name]) + entry[47:] for name in b"a" + names)
    last[8:12] = (len(names) + 1).to_bytes(2, "little") * 2
    last[12:16] = len(many).to_bytes(4, "little")
    path.write_bytes(content[:start] + many + last)
    with pytest.raises(archives.Unusable, match=r"expected at most .* the size of the file"):
        archives.read(path, 10**6, lambda name: True)


def test_too_large_and_too_many_are_refused(tmp_path, monkeypatch):
    path = archive(tmp_path / "a.zip", [("a", b"one"), ("ab", b"two")])
    with pytest.raises(TooLarge, match=r"a\.zip: expected a file of at most 10 bytes"):
        archives.read(path, 10, known)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 1)
    with pytest.raises(archives.Unusable, match=r"at most 1 files in the archive\. Received: 2"):
        archives.read(path, 1000, known)


def test_a_library_s_error_becomes_one_line_with_the_name_of_the_file():
    with pytest.raises(archives.Unusable, match=r"^a\.x: expected a thing: first$"):
        with archives.reading("a.x", "a thing"):
            raise RuntimeError("first\nsecond")
    with pytest.raises(archives.Unusable, match=r"^a\.x: expected a thing: EOFError$"):
        with archives.reading("a.x", "a thing"):
            raise EOFError
    with pytest.raises(MemoryError), archives.reading("a.x", "a thing"):
        raise MemoryError
    assert archives.shortened("x" * 400) == "x" * 300 + "..."


def test_damaged_archives_are_our_error(tmp_path, random):
    whole = archive(tmp_path / "whole.zip", [("a", b"one" * 50), ("ab", b"two" * 50)]).read_bytes()
    path, errors = tmp_path / "a.zip", []
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(random.integers(1, 5)):
            content[random.integers(len(content))] = random.integers(256)
        path.write_bytes(
            content[: random.integers(len(content))] if random.random() < 0.3 else content
        )
        try:
            archives.read(path, 10_000, known)
        except archives.Unusable as error:
            errors.append(str(error))
    assert len(errors) > 100
    assert all(error.startswith(f"{path}: ") for error in errors)
