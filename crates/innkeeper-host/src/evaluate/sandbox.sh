# PID 1 of the sandbox in which a preview-config.nix is evaluated. Runs as root in its own mount, network, PID, IPC
# and UTS namespaces, builds a root that contains only the given paths, and runs the evaluator there unprivileged.
#
#   sandbox ROOT USER DISK NPROC CPU MEMORY IN UMOUNT PRLIMIT SETPRIV NIX [SOURCE TARGET]...
#
# DISK and MEMORY are bytes, CPU is seconds, USER is a UID. IN contains `expression` and `registration` and is mounted
# at /in. Prints the result, a line with the evaluator's exit status, the registry of its store, and a line `end`
# (also on standard error). Then keeps the store unchanged until standard input is closed.
set -eu
# `kill -9 -1` below must not reach the host's processes.
[ $$ = 1 ] || exit 1
root=$1 user=$2 disk=$3 nproc=$4 cpu=$5 memory=$6 in=$7 umount=$8 prlimit=$9
shift 9
setpriv=$1 nix=$2
shift 2

# Mounts are private to this namespace and end with it.
mount -t tmpfs -o size=1m,mode=0755,nosuid,nodev none "$root"
cd "$root"
mkdir dev etc in proc nix
mount -t tmpfs -o "size=$disk,nr_inodes=200k,mode=0755,nosuid,nodev,noexec" none nix
mkdir nix/store nix/var nix/home
# Bind-mounts SOURCE read-only at TARGET. Neither is a link.
read_only() {
  if [ -d "$1" ]; then mkdir -p "$2"; else : > "$2"; fi
  mount --bind "$1" "$2"
  mount -o "remount,bind,ro,nosuid,nodev" "$2"
}
read_only "$in" in
while [ $# -gt 0 ]; do
  if [ -L "$1" ]; then
    ln -s "$(readlink "$1")" "$root$2"
  else
    read_only "$1" "$root$2"
  fi
  shift 2
done
for device in null urandom; do
  : > "dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done
echo "evaluator:x:$user:$user::/nix/home:/" > etc/passwd
chown "$user:$user" nix/store nix/var nix/home
# Hides other users' processes and all files that are not about processes.
mount -t proc -o hidepid=2,subset=pid,nosuid,nodev,noexec proc proc
pivot_root . .
"$umount" -l .
cd /

# The environment is replaced, too. One marking thread and a small initial heap keep the garbage collector from
# probing the machine.
evaluator() {
  "$prlimit" --core=0 --nofile=1024 --fsize="$disk" --nproc="$nproc" --cpu="$cpu:$((cpu + 2))" --as="$memory" \
    "$setpriv" --reuid="$user" --regid="$user" --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \
    "$nix/$@"
}
export HOME=/nix/home TMPDIR=/nix/home USER=evaluator PATH=/nonexistent LC_ALL=C \
  NIX_REMOTE=local NIX_CONF_DIR=/in NIX_USER_CONF_FILES=/nonexistent NIX_PATH= NIX_STATE_DIR=/nix/var \
  GC_NPROCS=1 GC_INITIAL_HEAP_SIZE=64m

# The daemon may exit at any time, even before the evaluator starts: then kill all processes until PID 1 ends.
exec 3<&0
{
  read -r _ <&3 || :
  while :; do kill -9 -1 || :; done
} < /dev/null > /dev/null 2>&1 &

evaluator nix-store --load-db < /in/registration
status=0
evaluator nix-instantiate --eval --strict --json --read-write-mode --show-trace --log-format internal-json - \
  < /in/expression || status=$?
# Kill the processes that the evaluator left.
kill -9 -1 || :
wait
printf '\n%s\n' "$status"
[ "$status" -ne 0 ] || evaluator nix-store --dump-db < /dev/null
# unshare holds these pipes open too, so readers need an explicit end.
echo end
echo end >&2
read -r _ <&3 || :
