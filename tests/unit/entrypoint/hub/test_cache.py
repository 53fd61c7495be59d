"""The cache on disk, used by several processes."""

from __future__ import annotations

import threading
from pathlib import Path

from entrypoint.hub.cache import HubCache

COMMIT, ETAG = "a" * 40, "b" * 64


def cache_with_blob(home: Path) -> HubCache:
    cache = HubCache.of(home, "zai-org/chatglm3-6b")
    cache.blob(ETAG).parent.mkdir(parents=True)
    cache.blob(ETAG).write_bytes(b"whole")
    return cache


def test_a_link_that_others_make_and_read_is_there_all_the_time(tmp_path: Path) -> None:
    cache = cache_with_blob(tmp_path)
    pointer = cache.snapshot(COMMIT) / "config.json"
    cache.link(COMMIT, pointer.name, ETAG)
    broken: list[Exception] = []

    def link() -> None:
        try:
            for _ in range(200):
                cache.link(COMMIT, pointer.name, ETAG)
                assert pointer.read_bytes() == b"whole"
        except Exception as error:
            broken.append(error)

    threads = [threading.Thread(target=link) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not broken
    assert pointer.is_symlink() and cache.blob(ETAG).is_file()
    assert [path.name for path in pointer.parent.iterdir()] == ["config.json"]


def test_the_bytes_on_disk_are_counted_for_complete_and_partial_files(tmp_path: Path) -> None:
    cache = cache_with_blob(tmp_path)
    other = "c" * 64
    assert (cache.stored_bytes(ETAG), cache.stored_bytes(other)) == (5, 0)
    cache.partial(other).write_bytes(b"par")
    assert cache.stored_bytes(other) == 3
