#!/usr/bin/env bash
# Submit a sweep from the shell, wait for it, and compare: bash workloads/sweep.sh [CLUSTER] [WORKLOAD] [KEY=VALUE ...]
#
# A queue (SLURM, KubeRay) takes all jobs at once; on a Ray cluster they would share it, so each is waited for in turn.
# Running this again submits nothing twice. A failed job ends the script with its reason.
set -euo pipefail
cluster=${1:-local}
workload=${2:-workloads/quickstart.yaml}
settings=()
for setting in "${@:3}"; do settings+=(--set "$setting"); done
runs=()
for beta in 0 0.1 1; do
    run=runs/sweep/beta-$beta
    fedsim submit "$workload" --cluster "$cluster" --wait --set "algorithm.beta=$beta" "${settings[@]}" --out "$run"
    runs+=("$run")
done
fedsim compare "${runs[@]}" --out runs/sweep/tables
