"""
What every implementation of the store contracts does.

Each check is a coroutine of a fresh, empty storage: an object with ``accounts``, ``rosters``,
``registrations``, ``nodes``, ``devices``, ``messages`` and ``traces``. Run all of `CHECKS` on yours::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    @pytest_twisted.ensureDeferred
    async def test_contract(check, storage):
        await check(storage)
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults
from zope.interface.verify import verifyObject

from xmpppush.errors import (
    AccountExists,
    LimitReached,
    NodeExists,
    NodeNotFound,
    OfflineFull,
    TooManyNodes,
    TooManyRegistrations,
    TooManySubscriptions,
)
from xmpppush.interfaces import (
    IAccountStore,
    IDeviceStore,
    IMessageStore,
    INodeStore,
    IRegistrationStore,
    IRosterStore,
    ITraceStore,
)
from xmpppush.model import Account, Device, RosterItem, ScramKeys, TraceLimits, TraceNote
from xmpppush.testing.builders import (
    a_delivery,
    a_node,
    a_registration,
    a_subscription,
    an_item,
    an_offline_message,
)

Check: TypeAlias = Callable[[Any], Awaitable[None]]

CHECKS: list[Check] = []

ALICE, BOB = "alice@localhost", "bob@localhost"
PUBSUB = "pubsub.localhost"


def check(function: Check) -> Check:
    CHECKS.append(function)
    return function


async def raised(error: type[Exception], awaitable: Awaitable[object]) -> bool:
    """Did it raise exactly that?"""
    try:
        await awaitable
    except error:
        return True
    return False


def an_account(jid: str = ALICE, salt: bytes = b"salt") -> Account:
    keys = {
        name: ScramKeys(salt, 4096, b"\x00stored", b"\xffserver") for name in ("SCRAM-SHA-1", "SCRAM-SHA-256")
    }
    return Account(jid, keys, 1000.0)


@check
async def all_stores_provide_their_interfaces(storage: Any) -> None:
    """Every method is there with its arguments."""
    assert verifyObject(IAccountStore, storage.accounts)
    assert verifyObject(IRosterStore, storage.rosters)
    assert verifyObject(IRegistrationStore, storage.registrations)
    assert verifyObject(INodeStore, storage.nodes)
    assert verifyObject(IMessageStore, storage.messages)
    assert verifyObject(ITraceStore, storage.traces)


# Accounts


@check
async def accounts_come_back_as_they_were(storage: Any) -> None:
    """Keys are octets; an unknown account is None; the list is sorted."""
    assert await storage.accounts.get(ALICE) is None
    await storage.accounts.add([an_account(BOB), an_account(ALICE)])
    assert await storage.accounts.get(ALICE) == an_account(ALICE)
    assert await storage.accounts.list() == (ALICE, BOB)


@check
async def accounts_are_added_all_or_none(storage: Any) -> None:
    """One that is there already, or twice in the batch, keeps the others out."""
    await storage.accounts.add([an_account(BOB)])
    assert await raised(AccountExists, storage.accounts.add([an_account(ALICE), an_account(BOB)]))
    assert await raised(AccountExists, storage.accounts.add([an_account(ALICE), an_account(ALICE)]))
    assert await storage.accounts.list() == (BOB,)


@check
async def accounts_without_keys_are_accounts(storage: Any) -> None:
    """Somebody whose keys are elsewhere is still there."""
    await storage.accounts.add([Account(ALICE, {}, 1.0)])
    assert await storage.accounts.get(ALICE) == Account(ALICE, {}, 1.0)


@check
async def accounts_get_new_keys(storage: Any) -> None:
    """The old ones are gone; there is nothing to replace where there is no account."""
    assert await storage.accounts.replace(an_account()) is False
    await storage.accounts.add([an_account()])
    new = Account(ALICE, {"SCRAM-SHA-256": ScramKeys(b"new", 8192, b"a", b"b")}, 1000.0)
    assert await storage.accounts.replace(new) is True
    assert await storage.accounts.get(ALICE) == new


@check
async def accounts_take_everything_with_them(storage: Any) -> None:
    """Whoever gets the JID next inherits no roster, message, registration, delivery, node or affiliation."""
    await storage.accounts.add([an_account(ALICE), an_account(BOB)])
    for account in (ALICE, BOB):
        await storage.rosters.put(account, RosterItem("carol@localhost"))
        await storage.registrations.put(a_registration(account=account), 5)
        await storage.messages.keep(an_offline_message(account=account), [a_delivery(account=account)], 5)
    await storage.traces.add([a_note(), a_note(account=BOB)], UNLIMITED)
    await storage.traces.add([a_note()], UNLIMITED)
    await storage.nodes.create(a_node(), 5)
    await storage.nodes.create(
        a_node(name="bobs", owner=BOB, affiliations={BOB: "owner", ALICE: "member"}), 5
    )
    # Now in the caches:
    assert await storage.registrations.of(ALICE)
    assert await storage.nodes.get(PUBSUB, "node-1")
    assert await storage.nodes.get(PUBSUB, "bobs")

    assert await storage.accounts.remove(ALICE) is True
    assert await storage.accounts.get(ALICE) is None
    assert await storage.rosters.get(ALICE) == ()
    assert await storage.registrations.of(ALICE) == ()
    assert await storage.messages.waiting(ALICE) == ()
    assert await storage.nodes.get(PUBSUB, "node-1") is None
    assert await storage.nodes.affiliated_with(PUBSUB, ALICE) == ()
    assert (await storage.nodes.get(PUBSUB, "bobs")).affiliations == {BOB: "owner"}
    assert [delivery.account for delivery in await storage.messages.queued(0, 9)] == [BOB]
    assert await storage.traces.of(ALICE, 9) == ()
    assert len(await storage.traces.of(BOB, 9)) == 1
    assert len(await storage.rosters.get(BOB)) == 1
    assert len(await storage.registrations.of(BOB)) == 1
    assert len(await storage.messages.waiting(BOB)) == 1
    assert await storage.accounts.remove(ALICE) is False


# Rosters


@check
async def rosters_are_sorted_and_replaced_by_jid(storage: Any) -> None:
    """A second put of a JID replaces; groups keep their order."""
    await storage.rosters.put(ALICE, RosterItem("carol@localhost", "Carol"))
    await storage.rosters.put(ALICE, RosterItem(BOB, "Bob"))
    item = RosterItem(BOB, "Bobby", ("Z", "Ünï"), "both")
    await storage.rosters.put(ALICE, item)
    assert await storage.rosters.get(ALICE) == (item, RosterItem("carol@localhost", "Carol"))
    assert await storage.rosters.get(BOB) == ()


@check
async def rosters_tell_whether_something_was_removed(storage: Any) -> None:
    """Removing what is not there is False."""
    await storage.rosters.put(ALICE, RosterItem(BOB))
    assert await storage.rosters.remove(ALICE, BOB) is True
    assert await storage.rosters.remove(ALICE, BOB) is False
    assert await storage.rosters.get(ALICE) == ()


# Registrations


@check
async def registrations_come_back_oldest_first(storage: Any) -> None:
    """All fields as they were, also once they are cached."""
    new = a_registration(node="a", created=2000.0)
    old = a_registration(node="b", options={"device_id": "töken\u0000", "empty": ""}, errors=3)
    await storage.registrations.put(new, 5)
    await storage.registrations.put(old, 5)
    for _ in range(2):
        assert await storage.registrations.of(ALICE) == (old, new)
    assert await storage.registrations.of(BOB) == ()


@check
async def registrations_of_a_known_account_fire_at_once(storage: Any) -> None:
    """So does the knowledge that there are none."""
    await storage.registrations.put(a_registration(), 5)
    for account in (ALICE, BOB):
        await storage.registrations.of(account)
        assert storage.registrations.of(account).called


@check
async def registrations_are_replaced_by_the_last_enable(storage: Any) -> None:
    """A repeat needs no room of its own (XEP-0357 section 5)."""
    await storage.registrations.put(a_registration(errors=2), 1)
    again = a_registration(options={"device_id": "token-2"}, resource="tablet", created=3000.0)
    assert await storage.registrations.of(ALICE) != (again,)
    await storage.registrations.put(again, 1)
    assert await storage.registrations.of(ALICE) == (again,)


@check
async def registrations_are_limited_an_account(storage: Any) -> None:
    """Two enables at the same time do not slip through together."""
    await storage.registrations.put(a_registration(account=BOB), 2)
    attempts = [storage.registrations.put(a_registration(node=f"n{number}"), 2) for number in range(4)]
    refused = [await raised(TooManyRegistrations, attempt) for attempt in attempts]
    assert refused == [False, False, True, True]
    assert [entry.node for entry in await storage.registrations.of(ALICE)] == ["n0", "n1"]


@check
async def registrations_are_removed_by_node_or_pubsub(storage: Any) -> None:
    """The result is how many; none is no error (section 6)."""
    for pubsub, node in ((PUBSUB, "1"), (PUBSUB, "2"), (PUBSUB, "3"), ("other.localhost", "1")):
        await storage.registrations.put(a_registration(pubsub=pubsub, node=node), 9)
    assert await storage.registrations.remove(ALICE, PUBSUB, "1") == 1
    assert await storage.registrations.remove(ALICE, PUBSUB, "1") == 0
    assert await storage.registrations.remove(ALICE, PUBSUB, None) == 2
    assert [entry.pubsub for entry in await storage.registrations.of(ALICE)] == ["other.localhost"]


@check
async def registrations_that_were_replaced_are_not_removed(storage: Any) -> None:
    """A verdict about an old registration does not hit the one enabled since, committed or not."""
    old = a_registration()
    await storage.registrations.put(old, 5)
    renewed = a_registration(created=2000.0)
    putting = storage.registrations.put(renewed, 5)
    assert await storage.registrations.remove_same(old) is False
    await putting
    assert await storage.registrations.of(ALICE) == (renewed,)
    other = a_registration(created=2000.0, options={"device_id": "token-2"})
    assert await storage.registrations.remove_same(other) is False
    await storage.registrations.count_error(ALICE, PUBSUB, "node-1")
    assert await storage.registrations.remove_same(renewed) is True
    assert await storage.registrations.of(ALICE) == ()
    assert await storage.registrations.remove_same(renewed) is False


@check
async def registrations_count_errors_in_a_row(storage: Any) -> None:
    """A success forgets them; where nothing is registered the count is 0."""
    await storage.registrations.put(a_registration(), 5)
    key = (ALICE, PUBSUB, "node-1")
    assert await storage.registrations.count_error(*key) == 1
    assert await storage.registrations.count_error(*key) == 2
    assert (await storage.registrations.of(ALICE))[0].errors == 2
    await storage.registrations.forget_errors(*key)
    assert (await storage.registrations.of(ALICE))[0].errors == 0
    await storage.registrations.forget_errors(*key)
    assert await storage.registrations.count_error(ALICE, PUBSUB, "unknown") == 0


@check
async def registrations_forget_an_error_that_is_still_being_counted(storage: Any) -> None:
    """A success that comes while the count is on its way to the disk is not overlooked."""
    await storage.registrations.put(a_registration(), 5)
    await storage.registrations.of(ALICE)
    counting = storage.registrations.count_error(ALICE, PUBSUB, "node-1")
    await storage.registrations.forget_errors(ALICE, PUBSUB, "node-1")
    assert await counting == 1
    assert (await storage.registrations.of(ALICE))[0].errors == 0


@check
async def registrations_are_suspended(storage: Any) -> None:
    """With a reason and a time, until a success or a new enable; the others are not touched."""
    other = a_registration(node="other", created=2000.0)
    await storage.registrations.put(a_registration(), 5)
    await storage.registrations.put(other, 5)
    key = (ALICE, PUBSUB, "node-1")
    await storage.registrations.suspend(*key, "enabled again meanwhile", 5000.0)
    assert await storage.registrations.of(ALICE) == (a_registration(), other)
    for revive in (
        lambda: storage.registrations.forget_errors(*key),
        lambda: storage.registrations.put(a_registration(), 5),
    ):
        await storage.registrations.count_error(*key)
        await storage.registrations.suspend(*key, "forbidden", 5000.0)
        suspended = a_registration(errors=1, state="suspended", reason="forbidden", next_try=5000.0)
        assert await storage.registrations.of(ALICE) == (suspended, other)
        await revive()
        assert await storage.registrations.of(ALICE) == (a_registration(), other)


@check
async def registrations_count_what_was_missed(storage: Any) -> None:
    """At once in memory, on the disk when saved; from nothing again when the device is back."""
    registrations = storage.registrations
    for node, resource in (("n1", "phone"), ("n2", "tablet")):
        await registrations.put(a_registration(node=node, resource=resource), 5)
    phone, tablet = await registrations.of(ALICE)
    assert [registrations.count_missed(phone) for _ in range(3)] == [1, 2, 3]
    assert registrations.count_missed(tablet) == 1
    assert [entry.missed for entry in await registrations.list(ALICE)] == [0, 0]
    assert await registrations.save_missed(1) == 1
    assert [entry.missed for entry in await registrations.list(ALICE)] == [3, 0]
    assert await registrations.save_missed() == 0
    assert [entry.missed for entry in await registrations.list(ALICE)] == [3, 1]
    assert await registrations.device_back(ALICE, "phone") is True
    assert await registrations.device_back(ALICE, "phone") is False
    assert await registrations.device_back(BOB, "phone") is False
    assert registrations.count_missed(tablet) == 2
    await registrations.save_missed()
    assert [entry.missed for entry in await registrations.list(ALICE)] == [0, 2]
    # Whoever enables is there.
    await registrations.put(tablet, 5)
    assert registrations.count_missed(tablet) == 1


@check
async def registrations_that_are_gone_are_not_counted_back(storage: Any) -> None:
    """Saving a count makes no registration, nor does one that was removed come back with it."""
    await storage.registrations.put(a_registration(), 5)
    storage.registrations.count_missed(a_registration())
    await storage.registrations.remove(ALICE, PUBSUB, None)
    await storage.registrations.save_missed()
    assert await storage.registrations.of(ALICE) == ()
    await storage.registrations.put(a_registration(), 5)
    assert storage.registrations.count_missed(a_registration()) == 1


@check
async def registrations_read_during_a_write_are_not_stale_after_it(storage: Any) -> None:
    """Once a write has fired, every read tells what it wrote."""
    await storage.registrations.of(ALICE)
    writing = storage.registrations.put(a_registration(), 5)
    await storage.registrations.of(ALICE)
    await writing
    assert await storage.registrations.of(ALICE) == (a_registration(),)
    removing = storage.registrations.remove(ALICE, PUBSUB, None)
    await storage.registrations.of(ALICE)
    await removing
    assert await storage.registrations.of(ALICE) == ()


@check
async def registrations_are_listed_by_account(storage: Any) -> None:
    """Of all accounts, or of one."""
    first, second = a_registration(account=ALICE), a_registration(account=BOB)
    await storage.registrations.put(second, 5)
    await storage.registrations.put(first, 5)
    assert await storage.registrations.list(None) == (first, second)
    assert await storage.registrations.list(BOB) == (second,)


# Nodes


@check
async def nodes_come_back_as_they_were(storage: Any) -> None:
    """By host and name; an unknown node is None, at once the second time."""
    node = a_node(config={"pubsub#title": "Ä"})
    await storage.nodes.create(node, 5)
    for _ in range(2):
        assert await storage.nodes.get(PUBSUB, "node-1") == node
        assert await storage.nodes.get("other.localhost", "node-1") is None
    assert storage.nodes.get(PUBSUB, "node-1").called
    assert storage.nodes.get("other.localhost", "node-1").called


@check
async def nodes_are_created_once(storage: Any) -> None:
    """The second is refused, though it would be too many as well, and changes nothing."""
    assert await storage.nodes.get(PUBSUB, "node-1") is None
    await storage.nodes.create(a_node(), 1)
    assert await raised(NodeExists, storage.nodes.create(a_node(owner=BOB, affiliations={}), 0))
    assert await storage.nodes.get(PUBSUB, "node-1") == a_node()


@check
async def nodes_are_limited_an_owner_and_host(storage: Any) -> None:
    """Two creations at the same time do not slip through together."""
    await storage.nodes.create(a_node(host="other.localhost"), 1)
    await storage.nodes.create(a_node(name="bobs", owner=BOB), 1)
    attempts = [storage.nodes.create(a_node(name=f"n{number}"), 2) for number in range(3)]
    assert [await raised(TooManyNodes, attempt) for attempt in attempts] == [False, False, True]
    assert await storage.nodes.get(PUBSUB, "n2") is None


@check
async def nodes_are_configured(storage: Any) -> None:
    """The new config replaces the old one."""
    assert await storage.nodes.configure(PUBSUB, "node-1", {}) is False
    await storage.nodes.create(a_node(config={"pubsub#title": "one"}), 5)
    await storage.nodes.get(PUBSUB, "node-1")
    assert await storage.nodes.configure(PUBSUB, "node-1", {"pubsub#max_items": "1"}) is True
    assert (await storage.nodes.get(PUBSUB, "node-1")).config == {"pubsub#max_items": "1"}


@check
async def nodes_change_affiliations(storage: Any) -> None:
    """Those not named stay, ``none`` removes."""
    assert await storage.nodes.affiliate(PUBSUB, "node-1", {BOB: "member"}) is False
    assert await storage.nodes.affiliated_with(PUBSUB, BOB) == ()
    await storage.nodes.create(a_node(), 5)
    await storage.nodes.get(PUBSUB, "node-1")
    assert await storage.nodes.affiliate(PUBSUB, "node-1", {BOB: "owner", "localhost": "none"}) is True
    assert (await storage.nodes.get(PUBSUB, "node-1")).affiliations == {ALICE: "owner", BOB: "owner"}


@check
async def nodes_are_deleted_with_their_affiliations(storage: Any) -> None:
    """A new node with the name begins from nothing."""
    await storage.nodes.create(a_node(affiliations={ALICE: "owner", BOB: "outcast"}), 5)
    await storage.nodes.get(PUBSUB, "node-1")
    assert await storage.nodes.delete(PUBSUB, "node-1") is True
    assert await storage.nodes.delete(PUBSUB, "node-1") is False
    assert await storage.nodes.get(PUBSUB, "node-1") is None
    await storage.nodes.create(a_node(affiliations={ALICE: "owner"}), 5)
    assert (await storage.nodes.get(PUBSUB, "node-1")).affiliations == {ALICE: "owner"}


@check
async def nodes_are_found_by_affiliation(storage: Any) -> None:
    """Sorted by name; owned ones apart from those that know somebody at all."""
    await storage.nodes.create(a_node(name="b"), 5)
    await storage.nodes.create(a_node(name="a"), 5)
    await storage.nodes.create(
        a_node(name="c", owner=BOB, affiliations={BOB: "owner", ALICE: "publisher"}), 5
    )
    await storage.nodes.create(a_node(name="d", host="other.localhost"), 5)
    assert [node.name for node in await storage.nodes.owned_by(PUBSUB, ALICE)] == ["a", "b"]
    assert [node.name for node in await storage.nodes.affiliated_with(PUBSUB, ALICE)] == ["a", "b", "c"]
    assert (await storage.nodes.owned_by(PUBSUB, BOB))[0].affiliations[ALICE] == "publisher"


# Subscriptions and items


@check
async def subscriptions_come_back_as_they_were(storage: Any) -> None:
    """One for each JID; the second attempt is told what is there."""
    one = a_subscription(options={"pubsub#deliver": "0"})
    assert await raised(NodeNotFound, storage.nodes.subscribe(one, 5, 5))
    await storage.nodes.create(a_node(), 5)
    assert await storage.nodes.subscribe(one, 5, 5) is None
    assert await storage.nodes.subscribe(a_subscription(state="pending"), 5, 5) == one
    other = a_subscription(jid=f"{BOB}/desk")
    assert await storage.nodes.subscribe(other, 5, 5) is None
    assert await storage.nodes.subscriptions(PUBSUB, "node-1") == (one, other)
    assert await storage.nodes.subscriptions_of(PUBSUB, BOB) == (one, other)
    assert await storage.nodes.subscriptions_of(PUBSUB, ALICE) == ()
    assert await storage.nodes.subscriptions_of("other.localhost", BOB) == ()


@check
async def subscriptions_are_limited(storage: Any) -> None:
    """A node, and an account on a host; what is there already is not one more."""
    await storage.nodes.create(a_node(), 5)
    await storage.nodes.create(a_node(name="node-2"), 5)
    assert await storage.nodes.subscribe(a_subscription(), 1, 1) is None
    assert await storage.nodes.subscribe(a_subscription(), 1, 1) == a_subscription()
    full = a_subscription(jid=ALICE, account=ALICE)
    assert await raised(TooManySubscriptions, storage.nodes.subscribe(full, 1, 9))
    assert await raised(TooManySubscriptions, storage.nodes.subscribe(a_subscription(node="node-2"), 9, 1))


@check
async def subscriptions_change_and_end(storage: Any) -> None:
    """State and options apart; False where there is none."""
    await storage.nodes.create(a_node(), 5)
    await storage.nodes.subscribe(a_subscription(state="pending"), 5, 5)
    nodes = storage.nodes
    assert await nodes.change_subscription(PUBSUB, "node-1", BOB, "subscribed", None) is True
    assert await nodes.change_subscription(PUBSUB, "node-1", BOB, None, {"pubsub#deliver": "0"}) is True
    assert await nodes.change_subscription(PUBSUB, "node-1", ALICE, "subscribed", None) is False
    (one,) = await nodes.subscriptions(PUBSUB, "node-1")
    assert one == a_subscription(options={"pubsub#deliver": "0"})
    assert await nodes.unsubscribe(PUBSUB, "node-1", BOB) is True
    assert await nodes.unsubscribe(PUBSUB, "node-1", BOB) is False


@check
async def items_come_back_in_the_order_of_publishing(storage: Any) -> None:
    """One that is published again is the last one; without a node there are none."""
    nodes = storage.nodes
    assert await nodes.publish(PUBSUB, "node-1", an_item(), 9, 999) is False
    await nodes.create(a_node(), 5)
    for name in ("a", "b", "a"):
        assert await nodes.publish(PUBSUB, "node-1", an_item(id=name), 9, 999) is True
    assert await nodes.items(PUBSUB, "node-1", 9) == (an_item(id="b"), an_item(id="a"))
    assert await nodes.items(PUBSUB, "node-1", 1) == (an_item(id="a"),)
    assert await nodes.item_ids(PUBSUB, "node-1") == ("b", "a")
    assert await nodes.item(PUBSUB, "node-1", "b") == an_item(id="b")
    assert await nodes.item(PUBSUB, "node-1", "c") is None
    assert await nodes.item(PUBSUB, "node-2", "b") is None


@check
async def items_make_room_for_later_ones(storage: Any) -> None:
    """By number and by size, also when there is less room from now on."""
    nodes = storage.nodes
    await nodes.create(a_node(), 5)
    for number in range(4):
        await nodes.publish(PUBSUB, "node-1", an_item(id=str(number), payload="é" * 5), 3, 25)
    assert await nodes.item_ids(PUBSUB, "node-1") == ("2", "3")
    await nodes.publish(PUBSUB, "node-1", an_item(id="4", payload=""), 3, 25)
    await nodes.publish(PUBSUB, "node-1", an_item(id="5", payload=""), 3, 25)
    assert await nodes.item_ids(PUBSUB, "node-1") == ("3", "4", "5")
    assert await nodes.configure(PUBSUB, "node-1", {}, 2) is True
    assert await nodes.item_ids(PUBSUB, "node-1") == ("4", "5")
    assert await nodes.publish(PUBSUB, "node-1", an_item(id="6"), 0, 25) is True
    assert await nodes.item_ids(PUBSUB, "node-1") == ()


@check
async def items_are_retracted_and_purged(storage: Any) -> None:
    """One, or all of this node."""
    nodes = storage.nodes
    await nodes.create(a_node(), 5)
    await nodes.create(a_node(name="node-2"), 5)
    for name in ("a", "b", "c"):
        await nodes.publish(PUBSUB, "node-1", an_item(id=name), 9, 999)
    await nodes.publish(PUBSUB, "node-2", an_item(), 9, 999)
    assert await nodes.retract(PUBSUB, "node-1", "b") is True
    assert await nodes.retract(PUBSUB, "node-1", "b") is False
    assert await nodes.purge(PUBSUB, "node-1") == 2
    assert await nodes.purge(PUBSUB, "node-1") == 0
    assert await nodes.item_ids(PUBSUB, "node-2") == ("item-1",)


@check
async def nodes_take_subscriptions_and_items_with_them(storage: Any) -> None:
    """A new node with the name has nobody and nothing."""
    nodes = storage.nodes
    await nodes.create(a_node(), 5)
    await nodes.subscribe(a_subscription(), 5, 5)
    await nodes.publish(PUBSUB, "node-1", an_item(), 9, 999)
    assert await nodes.delete(PUBSUB, "node-1") is True
    await nodes.create(a_node(), 5)
    assert await nodes.subscriptions(PUBSUB, "node-1") == ()
    assert await nodes.item_ids(PUBSUB, "node-1") == ()


@check
async def accounts_take_their_subscriptions_with_them(storage: Any) -> None:
    """What they published elsewhere stays, and is not the next one's of that name."""
    nodes = storage.nodes
    await storage.accounts.add([an_account(BOB)])
    await nodes.create(a_node(), 5)
    await nodes.subscribe(a_subscription(), 5, 5)
    await nodes.publish(PUBSUB, "node-1", an_item(publisher=BOB), 9, 999)
    await storage.accounts.remove(BOB)
    assert await nodes.subscriptions(PUBSUB, "node-1") == ()
    assert await nodes.items(PUBSUB, "node-1", 9) == (an_item(publisher=""),)


# Messages and deliveries


@check
async def messages_wait_in_their_order(storage: Any) -> None:
    """Also those whose keep has not fired yet, and only those of the account."""
    keeping = [
        storage.messages.keep(an_offline_message(xml=f"<message id='{number}'/>"), (), 9)
        for number in range(3)
    ]
    keeping.append(storage.messages.keep(an_offline_message(account=BOB), (), 9))
    waiting = await storage.messages.waiting(ALICE)
    assert [message.xml for message in waiting] == [f"<message id='{number}'/>" for number in range(3)]
    assert waiting[0].account == ALICE
    assert waiting[0].created == 1000.0
    assert 0 < waiting[0].id < waiting[1].id < waiting[2].id
    assert await gatherResults(keeping) == [(), (), (), ()]


@check
async def messages_bring_their_deliveries(storage: Any) -> None:
    """Each gets the number of its row; all else stays as it was."""
    first = await storage.messages.keep(
        an_offline_message(), [a_delivery(node="a"), a_delivery(node="b", body=b"\x00\xff")], 9
    )
    (second,) = await storage.messages.keep(None, [a_delivery(attempts=2, next_try=5.5)], 0)
    assert 0 < first[0].id < first[1].id < second.id
    assert first[0] == a_delivery(id=first[0].id, node="a")
    assert await storage.messages.queued(0, 9) == (*first, second)
    assert await storage.messages.queued_count() == 3
    assert len(await storage.messages.waiting(ALICE)) == 1


@check
async def messages_are_limited_an_account(storage: Any) -> None:
    """One too many stores nothing, no delivery either; the others at the same time are stored."""
    keeping = [storage.messages.keep(an_offline_message(), [a_delivery()], 2) for _ in range(3)]
    keeping.append(storage.messages.keep(an_offline_message(account=BOB), [], 2))
    assert [await raised(OfflineFull, keep) for keep in keeping] == [False, False, True, False]
    assert len(await storage.messages.waiting(ALICE)) == 2
    assert len(await storage.messages.waiting(BOB)) == 1
    assert await storage.messages.queued_count() == 2


@check
async def messages_are_read_a_few_at_a_time(storage: Any) -> None:
    """From a row number on, in order, as many as wanted."""
    for number in range(5):
        await storage.messages.keep(an_offline_message(xml=f"<message id='{number}'/>"), (), 9)
        await storage.messages.keep(an_offline_message(account=BOB), (), 9)
    everything = await storage.messages.waiting(ALICE)
    first = await storage.messages.waiting(ALICE, limit=2)
    rest = await storage.messages.waiting(ALICE, first[-1].id, 9)
    assert len(first) == 2
    assert first + rest == everything
    assert await storage.messages.waiting(ALICE, rest[-1].id, 9) == ()


@check
async def messages_make_room_when_they_are_forgotten(storage: Any) -> None:
    """What was delivered does not count; forgetting twice is no error."""
    await storage.messages.keep(an_offline_message(), (), 1)
    ids = [message.id for message in await storage.messages.waiting(ALICE)]
    await storage.messages.forget(ids)
    await storage.messages.forget(ids)
    await storage.messages.forget([])
    assert await storage.messages.waiting(ALICE) == ()
    await storage.messages.keep(an_offline_message(), (), 1)
    assert await raised(OfflineFull, storage.messages.keep(an_offline_message(), (), 1))


@check
async def messages_are_handed_and_forgotten(storage: Any) -> None:
    """A handed message waits in its place, with its deliveries, whatever the limit; then it is forgotten."""
    await storage.messages.keep(an_offline_message(xml="<message id='1'/>"), (), 1)
    handing = [
        storage.messages.hand(
            an_offline_message(xml=f"<message id='{number}'/>", push_due=number == 3),
            [a_delivery(node=f"n{number}")] if number == 2 else (),
        )
        for number in (2, 3)
    ]
    waiting = await storage.messages.waiting(ALICE)
    assert [message.xml for message in waiting] == [f"<message id='{number}'/>" for number in (1, 2, 3)]
    assert [message.push_due for message in waiting] == [False, False, True]
    (second, (delivery,)), (third, none) = await gatherResults(handing)
    assert (second, third) == (waiting[1].id, waiting[2].id)
    assert none == ()
    assert await storage.messages.queued(0, 9) == (delivery,)
    assert await raised(OfflineFull, storage.messages.keep(an_offline_message(), (), 3))
    await storage.messages.forget([second])
    await storage.messages.keep(an_offline_message(), (), 3)
    assert [message.id for message in await storage.messages.waiting(ALICE)][:2] == [waiting[0].id, third]


@check
async def messages_have_their_pushes_decided_later(storage: Any) -> None:
    """Once final no push is due any more; of a message that is gone only the deliveries are kept."""
    first, _ = await storage.messages.hand(an_offline_message(push_due=True), ())
    second, _ = await storage.messages.hand(an_offline_message(push_due=True), ())
    assert [message.id for message in await storage.messages.due(0, 9)] == [first, second]
    assert [message.id for message in await storage.messages.due(first, 9)] == [second]
    assert len(await storage.messages.due(0, 1)) == 1
    (delivery,) = await storage.messages.decided(first, [a_delivery()], False)
    assert delivery.id > 0
    assert len(await storage.messages.due(0, 9)) == 2
    assert await storage.messages.decided(first, (), True) == ()
    assert [message.id for message in await storage.messages.due(0, 9)] == [second]
    await storage.messages.forget([second])
    (another,) = await storage.messages.decided(second, [a_delivery(node="b")], True)
    assert await storage.messages.due(0, 9) == ()
    assert await storage.messages.queued(0, 9) == (delivery, another)


@check
async def messages_of_a_removed_account_make_room(storage: Any) -> None:
    """The next one with the JID begins with an empty mailbox."""
    await storage.messages.keep(an_offline_message(), (), 1)
    await storage.accounts.remove(ALICE)
    await storage.messages.keep(an_offline_message(), (), 1)
    assert len(await storage.messages.waiting(ALICE)) == 1


@check
async def many_messages_at_once_are_all_kept(storage: Any) -> None:
    """However many go to disk together, each delivery gets its own number, in order."""
    kept = await gatherResults(
        [
            storage.messages.keep(
                an_offline_message(xml=f"<message id='{number}'/>"), [a_delivery(node=f"n{number}")], 500
            )
            for number in range(203)
        ]
    )
    ids = [delivery.id for (delivery,) in kept]
    assert ids == sorted(set(ids))
    assert [delivery.node for (delivery,) in kept] == [f"n{number}" for number in range(203)]
    assert await storage.messages.queued(0, 999) == tuple(delivery for (delivery,) in kept)
    xml = [message.xml for message in await storage.messages.waiting(ALICE)]
    assert xml == [f"<message id='{number}'/>" for number in range(203)]


@check
async def deliveries_are_settled(storage: Any) -> None:
    """Settled ones are gone; again, or of a number never given, is no error. Numbers are not used twice."""
    (first, second) = await storage.messages.keep(None, [a_delivery(), a_delivery(node="b")], 0)
    await gatherResults([storage.messages.settle([second.id]), storage.messages.settle([second.id, 10**6])])
    await storage.messages.settle([])
    assert await storage.messages.queued(0, 9) == (first,)
    (third,) = await storage.messages.keep(None, [a_delivery()], 0)
    assert third.id > second.id


@check
async def deliveries_are_postponed(storage: Any) -> None:
    """Their tries and their time are kept; one that is settled already stays so."""
    first, second = await storage.messages.keep(None, [a_delivery(), a_delivery()], 0)
    later = a_delivery(id=first.id, attempts=3, next_try=1234.5)
    await storage.messages.settle([second.id])
    await gatherResults([storage.messages.postpone(later), storage.messages.postpone(second)])
    assert await storage.messages.queued(0, 9) == (later,)


@check
async def deliveries_are_read_in_pages(storage: Any) -> None:
    """Above a number, in order, so many at the most."""
    kept = await storage.messages.keep(None, [a_delivery(node=f"n{number}") for number in range(5)], 0)
    assert await storage.messages.queued(0, 2) == kept[:2]
    assert await storage.messages.queued(kept[1].id, 2) == kept[2:4]
    assert await storage.messages.queued(kept[3].id, 2) == kept[4:]
    assert await storage.messages.queued(kept[4].id, 2) == ()


# Traces

UNLIMITED = TraceLimits(0.0, 1_000_000)


def a_note(**changes: Any) -> TraceNote:
    values: dict[str, Any] = {
        "trace": "t1",
        "at": 1000.0,
        "account": ALICE,
        "node": "node-1",
        "decision": "accepted",
        "reason": "no-session",
        "fields": {"sender": BOB, "message": "m1"},
    }
    return TraceNote(**{**values, **changes})


@check
async def traces_come_back_as_they_were(storage: Any) -> None:
    """By account and by id, in the order of time; nobody else's."""
    first, second = (
        a_note(),
        a_note(at=1001.5, decision="delivered", reason="HTTP 200", fields={"attempt": 2}),
    )
    other = a_note(trace="t2", account=BOB)
    await storage.traces.add([first, other], UNLIMITED)
    await storage.traces.add([second], UNLIMITED)
    assert await storage.traces.of(ALICE, 10) == (first, second)
    assert await storage.traces.of(BOB, 10) == (other,)
    assert await storage.traces.of("lice@localhost", 10) == ()
    assert await storage.traces.story("t1") == (first, second)
    assert await storage.traces.story("t") == ()


@check
async def traces_end_with_the_last_stories(storage: Any) -> None:
    """Whole ones, also where their notes are far apart."""
    long = a_note(trace="long", at=1.0)
    await storage.traces.add([long], UNLIMITED)
    for at in range(2, 9):
        await storage.traces.add([a_note(trace=f"t{at}", at=float(at))], UNLIMITED)
    end = a_note(trace="long", at=9.0, decision="delivered")
    await storage.traces.add([end], UNLIMITED)
    notes = await storage.traces.of(ALICE, 2)
    assert [(note.trace, note.at) for note in notes] == [("long", 1.0), ("t8", 8.0), ("long", 9.0)]


@check
async def traces_take_any_text(storage: Any) -> None:
    """JIDs and nodes may hold what JSON escapes; what is no Unicode does not cost the other notes."""
    odd = 'caf\\20\u00e9"@localhost'
    await storage.traces.add([a_note(account=odd, node='"\\\n'), a_note(node="\udc80")], UNLIMITED)
    assert [note.node for note in await storage.traces.of(odd, 1)] == ['"\\\n']
    assert [note.node for note in await storage.traces.of(ALICE, 1)] == ["?"]


@check
async def traces_are_limited_in_number(storage: Any) -> None:
    """With each write the oldest beyond the limit go."""
    for number in range(30):
        notes = [a_note(trace=f"t{number}", at=float(number))] * 10
        await storage.traces.add(notes, TraceLimits(0.0, 100))
    notes = await storage.traces.of(ALICE, 100)
    assert [note.at for note in notes[::10]] == [float(number) for number in range(20, 30)]


@check
async def traces_are_limited_in_age(storage: Any) -> None:
    """Pruning takes what is too old, however much it is."""
    for number in range(450):
        await storage.traces.add([a_note(at=float(number))], UNLIMITED)
    await storage.traces.prune(TraceLimits(440.0, 1_000_000))
    assert len(await storage.traces.of(ALICE, 1)) == 10
    await storage.traces.prune(TraceLimits(1000.0, 1_000_000))
    assert await storage.traces.of(ALICE, 1) == ()
    await storage.traces.add([a_note()], UNLIMITED)
    assert len(await storage.traces.of(ALICE, 1)) == 1


@check
async def traces_travel_with_deliveries(storage: Any) -> None:
    """The id of the story is in the queue's row."""
    await storage.messages.keep(None, [a_delivery(trace="t1")], 0)
    assert [delivery.trace for delivery in await storage.messages.queued(0, 9)] == ["t1"]


# Devices


def a_device(**changes: Any) -> Device:
    values: dict[str, Any] = {
        "host": PUBSUB,
        "node": "node-1",
        "app": "chat",
        "way": "p2",
        "key": "key-1",
        "owner": "owner-1",
        "publisher": "owner-1",
        "domain": "localhost",
        "token": "token-1",
        "secret": "secret-1",
        "data": {"account": "x"},
        "created": 1000.0,
        "renewed": 1000.0,
    }
    return Device(**{**values, **changes})


async def device_of(storage: Any, node: str) -> Device | None:
    found = storage.devices.get(PUBSUB, node)
    device: Device | None = await found if isinstance(found, Deferred) else found
    return device


@check
async def devices_come_back_as_they_were(storage: Any) -> None:
    """The contract is kept; also the second time, out of memory, and where there is none."""
    assert verifyObject(IDeviceStore, storage.devices)
    assert await storage.devices.put(a_device(), 9) == a_device()
    for _ in range(2):
        assert await device_of(storage, "node-1") == a_device()
        assert await device_of(storage, "node-2") is None


@check
async def devices_that_register_again_keep_node_and_secret(storage: Any) -> None:
    """Token, data and time are new; no room is needed."""
    await storage.devices.put(a_device(), 1)
    assert await device_of(storage, "node-1") == a_device()
    new: dict[str, Any] = {"token": "token-2", "data": {}, "renewed": 2.0, "account": "a@b"}
    again = a_device(node="node-2", secret="other", created=2.0, **new)  # noqa: S106
    now = a_device(**new)
    assert await storage.devices.put(again, 1) == now
    assert await device_of(storage, "node-1") == now
    assert await device_of(storage, "node-2") is None


@check
async def devices_are_limited(storage: Any) -> None:
    """For each owner and app."""
    await storage.devices.put(a_device(), 1)
    more = a_device(node="node-2", key="key-2")
    assert await raised(LimitReached, storage.devices.put(more, 1))
    await storage.devices.put(evolve(more, app="other"), 1)
    await storage.devices.put(a_device(node="node-3", key="key-3", owner="owner-3"), 1)


@check
async def devices_are_removed(storage: Any) -> None:
    """By key; or that very one, unless it registered again."""
    await storage.devices.put(a_device(), 9)
    assert await device_of(storage, "node-1") is not None
    assert not await storage.devices.remove(PUBSUB, "key-2")
    assert not await storage.devices.remove_same(a_device(renewed=999.0))
    assert await storage.devices.remove_same(a_device())
    assert await device_of(storage, "node-1") is None
    await storage.devices.put(a_device(), 9)
    assert await device_of(storage, "node-1") is not None
    assert await storage.devices.remove(PUBSUB, "key-1")
    assert await device_of(storage, "node-1") is None
