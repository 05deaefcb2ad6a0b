#!/usr/bin/env bash
# An agent that is a shell script: tells what it does, asks, hands in. Each call is durable when it returns.
#
#   bash docs/examples/shell_agent.sh
#
# Started again it asks the same question, so an answer that came meanwhile is heard. Without an orchestrator everything
# waits in the outbox, and `orchclient answer` on this host is how a person answers.
set -euo pipefail
export ORCHCLIENT_AGENT=shell-agent
task=nightly-build

# Whatever ends the script early is escalated.
trap 'orchclient escalate "$task" build_failed "line $LINENO ended with $?" > /dev/null' ERR

orchclient update "$task" in_progress --progress 10 --step "Checking out" > /dev/null
code=0
port=$(orchclient ask "$task" "Which port?" --option 80 --option 8080 --key port --wait=2s) || code=$?
case $code in
    0) ;;
    3) echo "still open"; exit 0 ;; # nobody has answered yet: to be run again
    *) exit "$code" ;;
esac
orchclient update "$task" testing --progress 80 --step "Testing on port $port" > /dev/null
orchclient complete "$task" --tests-passed 12 --tests-failed 0 > /dev/null
echo "done on port $port"
