"""Anonymous access to public buckets of Google Cloud Storage."""

from __future__ import annotations

from typing import Any

from gcsfs.core import GCSFileSystem

__all__ = ["PublicBuckets"]


class PublicBuckets(GCSFileSystem):
    """The plain file system of gcsfs, which asks for nothing but the objects.

    The one that gcsfs registers for ``gs://`` asks a second service (gRPC) for the type of the
    bucket before each operation, does what the plain one does where it gets no answer, and asks
    again. Public data lie in plain buckets, so the question is left out. gcsfs has an environment
    variable for that, but it is read once and holds for everybody in the process.
    """

    @staticmethod
    def close_session(loop: Any, session: Any, asynchronous: bool = False) -> None:
        """Drop the connections when the file system is forgotten, or Python ends.

        gcsfs closes them in fsspec's event loop. Those of a zarr store belong to zarr's, and the
        user would see a traceback at the end of each script.
        """
        if session is not None and not session.closed:
            session.connector._close()
