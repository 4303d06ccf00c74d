# Process 1 of the place in which a preview-config.nix is evaluated. Runs as root in namespaces of its own
# (mount, network, processes, IPC, host name), makes a root without anything of the host but what it is told,
# and has the evaluator run there as a user without rights.
#
#   sandbox ROOT USER DISK NPROC CPU MEMORY IN UMOUNT PRLIMIT SETPRIV NIX [SOURCE TARGET]...
#
# DISK and MEMORY are bytes, CPU is seconds, USER is a number. IN holds `expression`, `registration` and is seen
# as /in. What is printed: the answer, a line with the evaluator's exit status, what its store holds, and a line `end`,
# which standard error has too. Then the store is left alone until standard input ends.
set -eu
# Below, all processes are killed that can be.
[ $$ = 1 ] || exit 1
root=$1 user=$2 disk=$3 nproc=$4 cpu=$5 memory=$6 in=$7 umount=$8 prlimit=$9
shift 9
setpriv=$1 nix=$2
shift 2

# Nothing that is mounted here is seen outside, and nothing has to be unmounted.
mount -t tmpfs -o size=1m,mode=0755,nosuid,nodev none "$root"
cd "$root"
mkdir dev etc in proc nix
mount -t tmpfs -o "size=$disk,nr_inodes=200k,mode=0755,nosuid,nodev,noexec" none nix
mkdir nix/store nix/var nix/home
# Source and target of each mount; neither is a link.
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
# Other processes than one's own, and all that is not about processes, are not there.
mount -t proc -o hidepid=2,subset=pid,nosuid,nodev,noexec proc proc
pivot_root . .
"$umount" -l .
cd /

# What the variables of the host say is not known here either. One marking thread and a small first heap keep
# the collector from looking at the machine.
evaluator() {
  "$prlimit" --core=0 --nofile=1024 --fsize="$disk" --nproc="$nproc" --cpu="$cpu:$((cpu + 2))" --as="$memory" \
    "$setpriv" --reuid="$user" --regid="$user" --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \
    "$nix/$@"
}
export HOME=/nix/home TMPDIR=/nix/home USER=evaluator PATH=/nonexistent LC_ALL=C \
  NIX_REMOTE=local NIX_CONF_DIR=/in NIX_USER_CONF_FILES=/nonexistent NIX_PATH= NIX_STATE_DIR=/nix/var \
  GC_NPROCS=1 GC_INITIAL_HEAP_SIZE=64m

# The manager may end at any time; then the evaluator has nobody to work for, also if it has yet to start: whatever is
# started is killed until process 1 has nothing left to do.
exec 3<&0
{
  read -r _ <&3 || :
  while :; do kill -9 -1 || :; done
} < /dev/null > /dev/null 2>&1 &

evaluator nix-store --load-db < /in/registration
status=0
evaluator nix-instantiate --eval --strict --json --read-write-mode --log-format internal-json - \
  < /in/expression || status=$?
# Whatever the evaluator has started ends with it.
kill -9 -1 || :
wait
printf '\n%s\n' "$status"
[ "$status" -ne 0 ] || evaluator nix-store --dump-db < /dev/null
# The program that made the namespaces holds these open too, so nobody sees their end otherwise.
echo end
echo end >&2
read -r _ <&3 || :
