#!/usr/bin/env bash
# Submit a sweep from the shell, wait for it, and compare:
#
#   bash workloads/sweep.sh CLUSTER WORKLOAD KEY=VALUE,VALUE,... [KEY=VALUE ...]
#
# A queue (SLURM, KubeRay) takes all jobs at once; on a Ray cluster they would share it, so they run in turn.
# Running this again submits nothing twice. A failed job stops the script, with the reason.
set -euo pipefail
(($# > 2)) || { echo "usage: sweep.sh CLUSTER WORKLOAD KEY=VALUE,VALUE,... [KEY=VALUE ...]" >&2; exit 2; }
cluster=$1 workload=$2 key=${3%%=*}
IFS=, read -ra values <<<"${3#*=}"
settings=()
for setting in "${@:4}"; do settings+=(--set "$setting"); done
runs=()
for value in "${values[@]}"; do
    run=runs/sweep/$key=$value
    fedsim submit "$workload" --cluster "$cluster" --wait --set "$key=$value" "${settings[@]}" --out "$run"
    runs+=("$run")
done
fedsim compare "${runs[@]}" --out runs/sweep/tables
