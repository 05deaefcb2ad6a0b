"""An agent that reviews a change and asks before it merges."""

from orchclient import OrchestratorClient


def review(client: OrchestratorClient, task_id: str, findings: list[str]) -> bool:
    """Review, ask, hand in; whether the change was merged."""
    with client.task(task_id) as task:
        task.update("in_progress", current_step="Reading the diff", progress_percentage=45)
        question = task.ask("Merge in spite of the findings?", options=["yes", "no"], context={"findings": findings})
        answer = question.wait(30)
        merged = answer is not None and answer.choice == "yes"
        task.complete(None, {"tests_passed": 3}, artifacts={"merged": merged})
    return merged
