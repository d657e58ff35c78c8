"""How soon work goes on after faults, and a disk that is full when it is told to be."""

import os
import subprocess

import pytest
import trio

from jivsd.proof.pgserver import can_have_room
from jivsd.proof.room import NoRoom, Room
from jivsd.proof.torture.recovery import Recovery


@pytest.mark.jump
async def test_it_counts_from_when_all_is_whole_to_the_next_thing_that_is_acknowledged():
    recovery = Recovery()
    recovery.progress()
    assert recovery.worst == {}, "nothing was broken"
    with recovery.breaking("cut"):
        await trio.sleep(5)
        recovery.progress()
    await trio.sleep(2)
    recovery.progress()
    await trio.sleep(9)
    recovery.progress()
    assert recovery.worst == {"cut": 2}
    with recovery.breaking("cut"):
        pass
    await trio.sleep(1)
    recovery.progress()
    assert recovery.worst == {"cut": 2}


@pytest.mark.jump
async def test_what_is_broken_meanwhile_begins_it_anew_for_both():
    recovery = Recovery()
    with recovery.breaking("cut"):
        pass
    await trio.sleep(3)
    recovery.broke("kill")
    with recovery.breaking("lose"):
        await trio.sleep(1)
    await trio.sleep(4)
    recovery.mended("kill")
    await trio.sleep(0.5)
    recovery.progress()
    assert recovery.worst == {"cut": 0.5, "kill": 0.5, "lose": 0.5}


@pytest.mark.jump
async def test_calm_is_when_something_went_on():
    recovery = Recovery()
    await recovery.calm()
    with recovery.breaking("cut"):
        pass
    with trio.move_on_after(60) as patience:
        await recovery.calm()
    assert patience.cancelled_caught
    recovery.progress()
    await recovery.calm()


@pytest.mark.skipif(not can_have_room(), reason="this system lets an ordinary user mount nothing")
def test_a_room_is_full_and_has_room_again(tmp_path):
    room = Room(tmp_path)

    def inside(command):
        return subprocess.run([*room.entered_by, "/bin/sh", "-c", command], capture_output=True, text=True, cwd="/")

    try:
        assert inside(f"echo some > '{tmp_path}/file'").returncode == 0
        room.fill()
        assert "No space left on device" in inside(f"head -c 100000 /dev/zero > '{tmp_path}/other'").stderr
        room.empty()
        assert inside(f"echo more >> '{tmp_path}/file'").returncode == 0
        assert not os.listdir(tmp_path), "nobody else sees it"
    finally:
        room.close()


def test_there_is_no_room_where_nothing_can_be_mounted(tmp_path):
    with pytest.raises(NoRoom):
        Room(tmp_path / "missing")
