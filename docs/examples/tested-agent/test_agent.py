"""The agent, tested without a network. Only orchclient and pytest are installed."""

from agent import review


def test_it_says_what_it_said_when_it_was_recorded(orch_client, orch_server, orch_replay):
    orch_server.answer_each("yes")
    with orch_replay("review.jsonl"):
        assert review(orch_client, "pr-17", ["a test is missing"])


def test_a_no_is_a_no(orch_client, orch_server, orch_outbox):
    orch_server.answer_each("no")
    orch_server.expect("task.completed", task="pr-17", artifacts={"merged": False})
    assert not review(orch_client, "pr-17", [])
    orch_outbox.assert_recorded("clarification.requested", context={"findings": []})


def test_a_dashboard_survives_an_outage(orch_replay, orch_server):
    from orchclient.testing import Fault

    orch_server.plan(Fault.status(503), Fault.lose_reply())
    orch_replay.deliver("review.jsonl", to=orch_server).assert_all_delivered()
