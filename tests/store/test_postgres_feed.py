"""The feed while transactions overlap: what commits late comes late, and comes."""

from __future__ import annotations

from databases import NEWEST

from jivsd.store.feed import Cursor
from store.builders import append
from store.conformance.test_feed import follow, keys
from store.test_postgres import opened, somebody

APPEND = """SELECT jivsd.append_events('{}', '{}', ARRAY[$1::uuid], '{1}', '{1}', '{2}', '{1}', '{StepDone}', '{a}',
'{""}', ARRAY['{}'::bytea], ARRAY[NULL::text])"""


async def test_an_earlier_number_that_is_committed_later(postgres):
    url = postgres(NEWEST).clean()
    async with opened(url) as j, somebody(url) as other:
        early, late = await j.start(), await j.start()
        _, place = await follow(j.store)
        await other("BEGIN")
        await other(APPEND, late.run_id)
        end = await j.store.feed.end()
        for seq in (2, 3):
            await j.one(append(early, seq))
            found, place = await follow(j.store, place)
            assert keys(found) == [(early.run_id, seq)]
            place = Cursor.of(str(place))
        await other("COMMIT")
        found, place = await follow(j.store, place)
        assert keys(found) == [(late.run_id, 2)]
        found, _ = await follow(j.store, end)
        assert sorted(keys(found)) == sorted([(late.run_id, 2), (early.run_id, 2), (early.run_id, 3)])
        assert (await follow(j.store, place))[1].seen == {}
