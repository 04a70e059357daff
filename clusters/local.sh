#!/usr/bin/env bash
# A Ray cluster of several nodes on this machine, to rehearse cluster runs. Linux only.
#
#   clusters/local.sh up [NODES]   start it; by default 3 nodes of one core
#   clusters/local.sh nodes [NODES] what up would start, one line per node: cores, bytes for actors, bytes of object store
#   clusters/local.sh status       whether it is up
#   clusters/local.sh address      the dashboard's address, and the file that holds the token
#   clusters/local.sh down         stop it and the jobs running on it; submitted again, they resume
#
# Everything listens on loopback only, on free ports, and requires a token. `fedsim submit --cluster local` starts it
# if necessary. DRY_RUN=1 prints what up would run. Any script with these commands can be a --cluster; nodes is for
# checking a job before anything is started, and may be left out.
set -euo pipefail

state=${FEDSIM_STATE:-${XDG_STATE_HOME:-$HOME/.local/state}/fedsim}/local # address, token, folder of Ray, its start.log
mark=FEDSIM_LOCAL_CLUSTER=$state # in the environment of every process started here
cores=1                          # per node
object_store=1000000000          # bytes per node
memory_share=70                  # per cent of this machine's memory, for the actors of all nodes together
PATH=$(dirname "$(realpath "$0")")/../.venv/bin:$PATH

fail() {
    echo "local.sh: $*" >&2
    exit 1
}

# Processes of this cluster: all that share a session with a process that has the mark. Ray's Python processes lose it
# when they set their title. Never use `ray stop`, which stops every Ray of the user.
members() {
    local marked
    marked=$(grep -lszxF "$mark" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3 | paste -sd' ' || true)
    { cat /proc/[0-9]*/stat 2>/dev/null || true; } | awk -v marked="$marked" '
        { pid = $1; sub(/^.*\) /, ""); session[pid] = $4 }
        END {
            split(marked, pids, " ")
            for (i in pids) if (pids[i] in session) ours[session[pids[i]]]
            for (pid in session) if (session[pid] in ours) print pid
        }'
}

is_up() { [ -s "$state/address" ] && [ -n "$(members)" ]; }

end() {
    local pids
    rm -f "$state/address"
    while pids=$(members) && [ -n "$pids" ]; do
        # shellcheck disable=SC2086 # a list; some may have ended by now
        kill -KILL $pids 2>/dev/null || true
    done
    if [ -s "$state/folder" ]; then rm -rf "$(cat "$state/folder")"; fi
    rm -f "$state/folder" "$state/token"
}

# In a separate session, which a Ctrl-C here does not reach, and without our lock and output.
start() {
    if [ -n "${DRY_RUN:-}" ]; then
        echo "ray start $*"
    else
        env "$mark" setsid --wait ray start "$@" </dev/null >>"$state/start.log" 2>&1 9>&- ||
            fail "Ray did not start; $state/start.log says why"
    fi
}

# Memory for actors of each node [bytes], given the number of nodes.
memory_of() { echo $(($(awk '/^MemTotal/ {print $2}' /proc/meminfo) * 1024 * memory_share / (100 * $1))); }

up() {
    local nodes=$1 gcs='GCS-ADDRESS' folder='FOLDER' started=()
    local each=(--num-cpus="$cores" --memory="$(memory_of "$nodes")" --object-store-memory="$object_store"
        --dashboard-agent-listen-port=0 --include-log-monitor=false --disable-usage-stats)
    if [ -z "${DRY_RUN:-}" ]; then
        end # what is left of one that was not stopped properly
        trap end EXIT
        trap 'exit 130' INT TERM
        folder=$(mktemp -d "${RAY_TMPDIR:-/tmp}/fedsim-XXXXXX") # private, and short, since Ray's sockets are in it
        echo "$folder" >"$state/folder"
        : >"$state/start.log"
        head -c 32 /dev/urandom | od -An -vtx1 | tr -d ' \n' >"$state/token"
    fi
    unset RAY_ADDRESS RAY_API_SERVER_ADDRESS RAY_AUTH_TOKEN
    export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=1 # without it there would be one node only
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$state/token RAY_START_HOOK=fedsim.jobs.loopback.stay
    start --head --port=0 --dashboard-host=127.0.0.1 --dashboard-port=0 --include-dashboard=true --no-monitor \
        --temp-dir="$folder/1" "${each[@]}"
    if [ -z "${DRY_RUN:-}" ]; then gcs=$(cat "$folder/1/ray_current_cluster"); fi
    for node in $(seq 2 "$nodes"); do # in parallel, since each has a separate folder
        start --address="$gcs" --temp-dir="$folder/$node" "${each[@]}" &
        started+=($!)
    done
    for process in "${started[@]}"; do wait "$process"; done
    if [ -n "${DRY_RUN:-}" ]; then return; fi
    sed -n "s/.*RAY_API_SERVER_ADDRESS='\(http[^']*\)'.*/\1/p" "$state/start.log" | head -n 1 >"$state/address"
    [ -s "$state/address" ] || fail "Ray's dashboard did not start; $state/start.log says why"
    trap - EXIT INT TERM
}

command=${1:-} nodes=${2:-3}
if [[ $command =~ ^(up|nodes)$ && ! $nodes =~ ^[1-9][0-9]?$ ]]; then
    fail "$command $nodes: NODES must be a number from 1 to 99"
fi
case $command in
nodes) for _ in $(seq "$nodes"); do echo "$cores $(memory_of "$nodes") $object_store"; done ;;
up)
    command -v ray >/dev/null || fail "there is no ray on PATH; activate fedsim's environment"
    if [ -n "${DRY_RUN:-}" ]; then
        up "$nodes"
        exit
    fi
    umask 077
    mkdir -p "$state"
    exec 9>"$state/lock"
    flock 9
    if is_up; then
        echo "is up already at $(cat "$state/address")"
    else
        up "$nodes"
        echo "is up at $(cat "$state/address") with $nodes nodes; end it with: $0 down"
    fi
    ;;
down)
    if [ -d "$state" ]; then
        fedsim jobs list >/dev/null 2>&1 || true # records the final states of jobs before they are lost
        exec 9>"$state/lock"
        flock 9
        end
    fi
    echo "is down"
    ;;
status) if is_up; then echo "is up at $(cat "$state/address")"; else echo "is down"; fi ;;
address)
    is_up || fail "is down; bring it up with: $0 up"
    printf '%s\n' "$(cat "$state/address")" "$state/token"
    ;;
*) fail "${command:-no command}: say up [NODES], nodes [NODES], down, status or address" ;;
esac
