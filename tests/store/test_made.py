"""What the API makes, on both databases: resources, keys, kept answers."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from sipagent.store import access, resources
from sipagent.store.access import UNFINISHED, ApiKeyRecord, AuditRecord
from sipagent.store.queries import Queries
from sipagent.store.records import AlreadyThere
from sipagent.store.resources import Add, Alter, Remove, VoiceAppRecord
from sipagent.store.writing import Writes

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
APP = VoiceAppRecord(id="app_1", name="desk", dialplan="front-desk", created_at=AT, updated_at=AT)


def test_resources_keys_and_answers(url: str) -> None:
    writes, reads = Writes(url), Queries(url)
    before = reads.ask(resources.version)
    writes.run(lambda session: resources.write(session, [Add(APP)]))
    assert reads.ask(resources.version) != before
    assert reads.ask(resources.everything).apps == [APP]
    with pytest.raises(AlreadyThere):
        writes.run(lambda session: resources.write(session, [Add(msgspec.structs.replace(APP, id="app_2"))]))
    changed = {"status": "inactive", "settings": {"a": [1]}, "updated_at": AT + timedelta(seconds=1)}
    assert writes.run(lambda session: resources.write(session, [Alter(VoiceAppRecord, ["app_1"], changed)])) == 1
    assert reads.ask(resources.everything).apps == [msgspec.structs.replace(APP, **changed)]
    assert writes.run(lambda session: resources.write(session, [Remove(VoiceAppRecord, ["app_1"])])) == 1

    key = ApiKeyRecord(id="key_1", name="ci", hash="0" * 64, scopes=["read"], rate_per_s=None, created_at=AT)
    writes.run(lambda session: access.add_key(session, key))
    version = reads.ask(access.keys_version)
    writes.run(lambda session: access.revoke_key(session, "key_1", AT))
    assert reads.ask(access.keys_version) != version
    assert reads.ask(access.keys) == [msgspec.structs.replace(key, revoked_at=AT)]

    assert writes.run(lambda session: access.begin(session, "a", "k", "print", AT)) is None
    begun = writes.run(lambda session: access.begin(session, "a", "k", "print", AT))
    assert begun is not None and begun.status == UNFINISHED
    writes.run(lambda session: access.finish(session, "a", "k", 201, "{}"))
    kept = writes.run(lambda session: access.begin(session, "a", "k", "print", AT))
    assert kept is not None and (kept.status, kept.body) == (201, "{}")
    assert writes.run(lambda session: access.begin(session, "a", "k", "print", AT + timedelta(hours=25))) is None
    reads.close()
    writes.close()


def test_an_audit_row_that_is_refused_keeps_no_others_from_being_written(url: str) -> None:
    writes, reads = Writes(url), Queries(url)

    def row(index: int, at: datetime = AT, resource: str = "/x") -> AuditRecord:
        return AuditRecord(
            id=f"audit_{index}", at=at, key_id="key_1", node="n", action="hangup", resource=resource, status=200
        )

    rows = [row(1), row(2, at=AT.replace(tzinfo=None)), row(3, resource="/voice/calls/\0/hangup\ud800")]
    refused = writes.run(lambda session: access.write_down(session, rows, {}))
    assert refused == [rows[1]]
    assert writes.run(lambda session: access.write_down(session, [*rows, row(4)], {})) == [rows[1]]
    page = reads.ask(lambda session: access.audit_page(session, 10, None))
    assert [(it.id, it.resource) for it in page][:2] == [
        ("audit_4", "/x"),
        ("audit_3", "/voice/calls/\ufffd/hangup\ufffd"),
    ]
    assert len(page) == 3
    reads.close()
    writes.close()
