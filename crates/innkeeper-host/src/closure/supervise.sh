# Runs a program of Nix and ends all its descendants.
#
#   supervise CGROUP GRACE LIMITS NICENESS PROGRAM [ARGUMENT]...
#
# Standard input is a pipe that the daemon holds open and never writes to. The pipe closes when the daemon cancels the
# build or dies. Then the program gets SIGTERM, and after GRACE seconds all its processes are killed. The program runs in
# CGROUP, which is created for it. With an empty CGROUP, or if it cannot be created, only the program itself is killed.
# LIMITS are cgroups that the program must join, one per line. NICENESS is that of nice(1).
set -u
cgroup=$1 grace=$2 limits=$3 niceness=$4
shift 4
[ "$niceness" = 0 ] || set -- nice -n "$niceness" "$@"
exec 3<&0 < /dev/null
[ -z "$cgroup" ] || mkdir "$cgroup" 2> /dev/null || cgroup=

# Kills all processes of the cgroup and removes it with those below it.
clear_cgroup() {
  [ -n "$cgroup" ] || return 0
  tries=0
  # Older kernels have no cgroup.kill.
  while ! rmdir "$cgroup" 2> /dev/null && [ -d "$cgroup" ] && [ "$tries" -lt 500 ]; do
    { echo 1 > "$cgroup/cgroup.kill"; } 2> /dev/null || while read -r pid; do
      kill -KILL "$pid" 2> /dev/null
    done < "$cgroup/cgroup.procs"
    # With use-cgroups, Nix creates one for each build.
    rmdir "$cgroup"/*/*/ "$cgroup"/*/ 2> /dev/null
    tries=$((tries + 1))
    sleep 0.01
  done
}

(
  exec 3<&-
  set -f
  IFS='
'
  for limit in $limits; do
    echo 0 > "$limit/cgroup.procs" || exit 125
  done
  unset IFS
  [ -z "$cgroup" ] || echo 0 > "$cgroup/cgroup.procs" || exit 125
  exec "$@"
) &
program=$!

(
  read -r _ <&3
  kill -TERM "$program" 2> /dev/null
  tries=$((grace * 20))
  while [ "$tries" -gt 0 ] && kill -0 "$program" 2> /dev/null; do
    sleep 0.05
    tries=$((tries - 1))
  done
  kill -KILL "$program" 2> /dev/null
  clear_cgroup
) > /dev/null 2>&1 &
watcher=$!

exec 3<&-
status=0
wait "$program" || status=$?
clear_cgroup
kill -KILL "$watcher" 2> /dev/null
exit "$status"
