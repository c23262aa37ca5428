# Ends one instance: janitor.sh FOLDER ID [CGROUP FOLDER]...
# It waits for the other end of its standard input to go away, which happens however the owner ends: orderly, by a signal, killed.
folder=$1
id=$2
shift 2

while read -r _; do :; done
[ -e "$folder/detached" ] && exit 0

# The cgroups know every process, also those of pods. Without cgroups the mark in the environment has to do.
processes() {
    if [ $# -gt 0 ]; then
        find "$@" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u
    else
        grep -lsF "TESTBED_INSTANCE=$id" /proc/[0-9]*/environ | cut -d/ -f3
    fi
}

remains() {
    [ $# -gt 0 ] && find "$@" -depth -type d -exec rmdir {} + 2>/dev/null
    for cgroup in "$@"; do
        [ -d "$cgroup" ] && echo "$cgroup"
    done
}

attempt=0
while left=$(processes "$@"); [ -n "$left" ]; do
    kill -9 $left 2>/dev/null
    attempt=$((attempt + 1))
    [ $attempt -gt 500 ] && echo "processes did not end:" $left && exit 1
    sleep 0.01
done

attempt=0
while left=$(remains "$@"); [ -n "$left" ]; do
    attempt=$((attempt + 1))
    [ $attempt -gt 500 ] && echo "control groups could not be removed:" $left && exit 1
    sleep 0.01
done

# What is still mounted must not be emptied: no removal unless every mount below the folder is gone.
cut -d' ' -f2 /proc/self/mounts | grep -F "$folder/" | sort -r | while read -r mount; do
    umount "$(printf '%b' "$mount")" || exit 1
done || exit 1

rm -rf "$folder" && rm -f "$folder.lock"
