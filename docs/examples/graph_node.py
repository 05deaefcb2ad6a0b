"""A node of LangGraph, or of any graph whose nodes are functions of a state, told in five lines.

Run it as it is; with LangGraph where it is installed, else as plain functions:

    python docs/examples/graph_node.py

The wrapper tells when a node begins; what a node raises leaves the task's block, which escalates it. A node that asks
gives the question a key, so that a graph that runs the node again, as LangGraph does on resume, asks nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from typing import TypedDict

from orchclient import OrchestratorClient, Task

ANSWER_S = 2.0


class State(TypedDict, total=False):
    """What the nodes hand on."""

    request: str
    database: str
    code: str


Node = Callable[[State], State]


def told(task: Task) -> Callable[[Node], Node]:
    """Wrap a node so that it tells its task when it begins, and with what state."""

    def wrap(node: Node) -> Node:
        @wraps(node)
        def run(state: State) -> State:
            task.update(current_step=node.__name__, metadata={"state": dict(state)})
            return node(state)

        return run

    return wrap


def main() -> None:
    """Two nodes, the first of which asks a person."""
    with OrchestratorClient("graph-agent") as client, client.task("users-api") as task:

        @told(task)
        def choose(state: State) -> State:
            question = task.ask(
                f"Which database for {state['request']}?",
                options=["PostgreSQL", "SQLite"],
                recommended="SQLite",
                key="choose",
            )
            answer = question.wait(ANSWER_S)
            return {"database": (answer and answer.choice) or "SQLite"}  # the recommendation, when nobody is there

        @told(task)
        def write(state: State) -> State:
            return {"code": f"connect({state['database']!r})"}

        state = in_langgraph(choose, write) if find_spec("langgraph") else in_turn(choose, write)
        task.complete(None, {"tests_passed": 1, "tests_failed": 0}, {"code": state["code"]})
        print(state["code"])


def in_langgraph(*nodes: Node) -> State:
    """The same nodes in a graph of LangGraph."""
    from langgraph.graph import END, START, StateGraph

    graph = StateGraph(State)
    names = [node.__name__ for node in nodes]
    for name, node in zip(names, nodes, strict=True):
        graph.add_node(name, node)
    for before, after in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(before, after)
    result: State = graph.compile().invoke({"request": "the users' API"})
    return result


def in_turn(*nodes: Node) -> State:
    """Without any framework."""
    state: State = {"request": "the users' API"}
    for node in nodes:
        state |= node(state)
    return state


if __name__ == "__main__":
    main()
