#!/bin/bash
# A SLURM site of a controller and two nodes on this machine, for tests: each node has its own network, processes, name
# and scratch folder /mnt, as machines have. Needs root. It ends with its first process, whoever kills it:
#   unshare --net --mount --uts --pid --fork --kill-child --mount-proc bash slurm_site.sh FOLDER
# where FOLDER has hosts, munge.key and slurm.conf.
set -euo pipefail
folder=$1 node=${2:-}
mount --bind "$folder/hosts" /etc/hosts
ip link set lo up

if [[ $node ]]; then
    hostname "node$node"
    for private in /mnt /dev/shm; do mount -t tmpfs none $private; done
    mkfifo "$folder/cable$node"
    : >"$folder/cable$node" # until the controller has laid it
    ip address add "10.77.0.$node/24" dev eth0
    ip link set eth0 up
    mount --make-rshared / # what is mounted for the node later, its processes see
    while :; do            # it boots again after its inner first process, which waits for orphans, was killed
        unshare --pid --fork --kill-child --mount-proc --propagation slave bash -c 'slurmd -D & wait' || true
    done
fi

hostname control
ip link add name bridge type bridge
ip address add 10.77.0.254/24 dev bridge
ip link set bridge up
munged --foreground --force --key-file "$folder/munge.key" --socket "$folder/munge.socket" \
    --pid-file "$folder/munge.pid" --log-file "$folder/munge.log" --seed-file "$folder/munge.seed" &
for node in 1 2; do
    unshare --net --mount --uts --pid --fork --kill-child --mount-proc bash "$0" "$folder" $node &
    until [[ -p $folder/cable$node ]]; do sleep 0.05; done
    ip link add name "cable$node" type veth peer name eth0 netns $!
    ip link set "cable$node" master bridge up
    : <"$folder/cable$node"
done
until [[ -S $folder/munge.socket ]]; do sleep 0.05; done
exec slurmctld -D
