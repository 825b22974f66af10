"""The promotion protocol: any order of steps, any crash, a lost turn, and people who move the alias by hand."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from simulated import NAME, Crash, Process, Scheduler, World, at_rest

from clinprompt.errors import ClinpromptError, DataRejected, InputCorrupt, ServiceDown
from registry.protocol.lease import ALLOWANCE, SECONDS, LeaseLost
from registry.protocol.models import ref
from registry.protocol.opened import turn_at
from registry.versions import Version

INTERLEAVINGS = 200


def quiet(world: World) -> Process:
    """A process that nobody stops."""
    return Process(world, lambda name: None)


def check(world: World) -> None:
    """One champion, which is the journal's; a journal in one line; no rollback that was lost."""
    entries = world.journal.entries()
    champion, tokens = None, 0
    for entry in entries:
        assert entry.state in ("done", "undone")
        assert entry.before == champion, f"entry {entry.number} does not go on from the one before"
        champion = entry.champion
        tokens = max(tokens, entry.token)
    assert champion is not None
    assert champion.version == world.aliases["champion"]
    payloads = [version.tags["payload_digest"] for version in world.versions]
    assert len(payloads) == len(set(payloads))
    taken_back = set()
    for entry in entries:
        if entry.state == "done" and entry.operation == "rollback":
            assert entry.before is not None
            taken_back.add(entry.before.version)
        elif entry.counts and entry.after is not None:
            assert entry.after.version not in taken_back
    held = {version.number for version in world.versions if version.tags.get("quarantined") == "true"}
    assert held == taken_back
    assert champion.version not in held


# How long a process goes on before another does, and how often one stands still until its turn is over.
TEMPERS = [(0.9, 0.1), (0.95, 0.3), (0.8, 0.1), (0.97, 0.6)]


@pytest.mark.parametrize("temper", TEMPERS)
def test_any_order_of_two_promotions_and_a_rollback_leaves_one_champion(temper: tuple[float, float]) -> None:
    late = 0
    for seed in range(INTERLEAVINGS // len(TEMPERS)):
        world = at_rest()
        scheduler = Scheduler(world, seed, *temper)
        same = seed % 5 == 0
        scheduler.run(
            {
                "first": lambda process: process.decide_and_promote("p3"),
                "second": lambda process, same=same: process.decide_and_promote("p3" if same else "p4"),
                "rollback": lambda process: process.insist_on_rollback(),
            }
        )
        entries = world.journal.entries()
        for name, outcome in scheduler.outcomes.items():
            assert isinstance(outcome, str | int | ClinpromptError), (seed, name, outcome)
        late += any(entry.finished_by is not None for entry in entries)
        assert all(entry.operation != "adopt" for entry in entries), "a late write was taken for people's"
        world.time += SECONDS + ALLOWANCE + 1
        quiet(world).look()
        check(world)
        # Whoever was told that it was done finds it in the journal.
        counted = [entry for entry in world.journal.entries() if entry.counts]
        back = scheduler.outcomes["rollback"]
        if isinstance(back, int):
            assert [e.before.version for e in counted if e.operation == "rollback" and e.before] == [back]
        for name, payload in (("first", "p3"), ("second", "p3" if same else "p4")):
            if scheduler.outcomes[name] == "promoted":
                assert any(e.operation == "promote" and e.after and e.after.payload == payload for e in counted)
    assert late > 0, "no turn was lost: the simulation is too tame"


def count_steps(action: Callable[[Process], Any]) -> int:
    """How many steps an action takes in a world at rest."""
    steps: list[str] = []
    action(Process(at_rest(), steps.append))
    return len(steps)


VERBS: dict[str, Callable[[Process], Any]] = {
    "promote": lambda process: process.promote("p3", 2),
    "rollback": lambda process: process.rollback(),
}


@pytest.mark.parametrize("then", ["the same", "look"])
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("verb", list(VERBS))
def test_a_crash_at_any_step_and_any_verb_end_the_same(verb: str, late: bool, then: str) -> None:
    action = VERBS[verb]
    untouched, whole = at_rest(), at_rest()
    action(quiet(whole))
    for last in range(1, count_steps(action) + 1):
        world, counter = at_rest(), itertools.count(1)

        def die(name: str, counter: Any = counter, last: int = last) -> None:
            if next(counter) >= last:  # what is dead stays dead
                raise Crash

        process = Process(world, lambda name: None, die) if late else Process(world, die)
        with pytest.raises(Crash):
            action(process)
        assert world.aliases["champion"] in (1, 2, 3)  # consumers are served at every moment
        world.time += SECONDS + ALLOWANCE + 1
        committed = any(entry.number == 3 and entry.state != "intended" for entry in world.journal.entries())
        if then == "look":
            quiet(world).look()
            assert world.state()[:2][0] == (whole if committed else untouched).aliases
        elif not committed:
            action(quiet(world))
            assert world.aliases == whole.aliases
        else:
            quiet(world).look()
            assert world.aliases == whole.aliases
        check(world)
        held = [version.tags.get("quarantine_reason") for version in world.versions]
        assert held.count("bad") == (verb == "rollback" and (committed or then != "look"))


def test_a_process_that_stands_still_after_its_commit_undoes_its_late_write() -> None:
    world = at_rest()

    def overtake(name: str) -> None:
        if name == "set_alias" and not done:
            done.append(name)
            world.time += SECONDS + ALLOWANCE + 1
            other = quiet(world)
            other.look()  # carries the entry out
            other.rollback()
            other.promote("p4", 2)

    done: list[str] = []
    slow = Process(world, overtake)
    with pytest.raises(DataRejected, match="Another promotion of 'tiny' went on at the same time"):
        slow.promote("p3", 2)
    assert world.aliases == {"champion": 4, "previous": 2}
    check(world)
    assert [entry.operation for entry in world.journal.entries()][2:] == ["promote", "rollback", "promote", "restore"]


def test_a_late_write_of_a_process_that_then_dies_is_set_right_by_the_next_verb() -> None:
    world = at_rest()

    def overtake(name: str) -> None:
        if name == "set_alias" and not done:
            done.append(name)
            world.time += SECONDS + ALLOWANCE + 1
            quiet(world).look()
            quiet(world).rollback()

    def die(name: str) -> None:
        if done and name == "set_alias":
            writes.append(name)
            if len(writes) == 2:
                raise Crash

    done: list[str] = []
    writes: list[str] = []
    with pytest.raises(Crash):
        Process(world, overtake, die).promote("p3", 2)
    assert world.aliases == {"champion": 3, "previous": 2}  # both too late: 3 was rolled back
    quiet(world).look()
    assert world.aliases == {"champion": 2}
    check(world)


def test_what_was_intended_in_a_lost_turn_is_not_committed() -> None:
    world = at_rest()
    with (
        pytest.raises(LeaseLost, match="another took its turn at tiny/lease.json"),
        turn(world) as mine,
        mine.intend("promote", mine.champion(), None) as change,
    ):
        world.time += SECONDS + ALLOWANCE + 1
        quiet(world).look()
        change.commit(quiet(world).find_or_create("p3"), 2)
    assert world.aliases == {"champion": 2, "previous": 1}
    assert world.state()[2][-1] == ("promote", "undone")


def turn(world: World) -> Any:
    """A turn of a process that nobody stops."""
    process = quiet(world)
    return turn_at(process, process, process)


def test_a_live_turn_is_waited_for_and_its_tokens_rise() -> None:
    world = at_rest()
    with turn(world) as mine, pytest.raises(ServiceDown, match="has had its turn at tiny/lease.json for more than 60"):
        first = mine.lease.token

        def alive(name: str) -> None:
            if name == "sleep":
                mine.lease.renew()

        Process(world, alive).look()
    with turn(world) as mine:
        assert mine.lease.token == first + 1


def test_an_alias_that_people_moved_is_followed_and_written_down() -> None:
    world = at_rest()
    world.aliases["champion"] = 1
    quiet(world).look()
    last = world.journal.entries()[-1]
    assert (last.operation, last.before and last.before.version, last.after and last.after.version) == ("adopt", 2, 1)
    with pytest.raises(DataRejected, match="stale"):
        quiet(world).promote("p3", 2)
    assert quiet(world).promote("p3", 1) == "promoted"


def test_an_alias_that_was_lost_or_is_at_what_was_rolled_back_is_set_again() -> None:
    world = at_rest()
    del world.aliases["champion"]
    quiet(world).look()
    assert world.aliases["champion"] == 2
    quiet(world).rollback()
    world.aliases["champion"] = 2
    quiet(world).look()
    assert world.aliases["champion"] == 1
    check(world)


def test_a_champion_that_was_deleted_is_none() -> None:
    world = at_rest()
    world.versions.pop()
    del world.aliases["champion"]
    quiet(world).look()
    assert world.journal.entries()[-1].after is None
    assert quiet(world).promote("p3", None) == "promoted"


def test_a_registry_from_before_the_journal_is_taken_over() -> None:
    world = World(aliases={"champion": 1}, versions=[Version(NAME, 1, {"payload_digest": "p1"})])
    assert quiet(world).promote("p2", 1) == "promoted"
    assert world.state()[2] == [("adopt", "done"), ("promote", "done")]
    assert world.aliases == {"champion": 2, "previous": 1}


def test_a_champion_that_came_past_the_journal_is_not_overwritten() -> None:
    world = at_rest()
    with (
        pytest.raises(DataRejected, match="Another promotion"),
        turn(world) as mine,
        mine.intend("promote", mine.champion(), ref(mine.champion())) as change,
    ):
        world.aliases["champion"] = 1
        change.commit(quiet(world).find_or_create("p3"), 2)
    assert world.aliases["champion"] == 1


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"format": 2}', b"\xff", b"[" * 5000])
def test_a_journal_that_was_damaged_is_not_gone_on_with(content: bytes) -> None:
    world = at_rest()
    key = f"{NAME}/journal/00000002.json"
    stored = world.store.read(key)
    world.store.replace(key, content, stored.etag)
    with pytest.raises(InputCorrupt, match=r"00000002\.json is no entry of a registry's journal"):
        quiet(world).look()
