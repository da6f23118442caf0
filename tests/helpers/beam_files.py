"""A file system of Apache Beam that lies in the memory of this process, for addresses that begin with `kept://`."""

import io
import time

from apache_beam.io.filesystem import BeamIOError, FileMetadata, FileSystem

FILES: dict[str, bytes] = {}


class _Written(io.BytesIO):
    """A file that is there when it is closed, as in a store of objects."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def close(self):
        if not self.closed:
            FILES[self.path] = self.getvalue()
        super().close()


class KeptFileSystem(FileSystem):
    @classmethod
    def scheme(cls):
        return "kept"

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path):
        head, _, tail = path.rpartition("/")
        return head, tail

    def mkdirs(self, path):
        pass

    def has_dirs(self):
        return False

    def _list(self, dir_or_prefix):
        for path in list(FILES):
            if path.startswith(dir_or_prefix):
                yield self.metadata(path)

    def create(self, path, mime_type="", compression_type=None):
        return _Written(path)

    def open(self, path, mime_type="", compression_type=None):
        if path not in FILES:
            raise BeamIOError(f"{path} is not there")
        return io.BytesIO(FILES[path])

    def copy(self, source_file_names, destination_file_names):
        for source, destination in zip(source_file_names, destination_file_names, strict=True):
            FILES[destination] = FILES[source]

    def rename(self, source_file_names, destination_file_names):
        self.copy(source_file_names, destination_file_names)
        self.delete(source_file_names)

    def exists(self, path):
        return path in FILES

    def size(self, path):
        return len(FILES[path])

    def last_updated(self, path):
        return time.time()

    def checksum(self, path):
        return str(len(FILES[path]))

    def metadata(self, path):
        return FileMetadata(path, len(FILES[path]), 0.0)

    def delete(self, paths):
        for path in paths:
            del FILES[path]
