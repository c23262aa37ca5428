# Furnishes a node's own network and mounts, then only stays alive: holder.sh ADDRESS SERVICE_CIDR READY_FILE
set -e
PATH=$PATH:/usr/sbin:/sbin
address=$1
services=$2
ready=$3

# The node's address is on lo. Services are reached by a route for just their addresses, on a link that leads nowhere: the rules of
# kube-proxy rewrite packets before they leave. No default route: a pull of a missing image must fail at once, not hang.
ip link set lo up
ip addr add "$address/32" dev lo
ip link add svc0 type veth peer name svc1
ip link set svc0 up
ip link set svc1 up
ip route add "$services" dev svc0 src "$address"
echo 1 >/proc/sys/net/ipv4/ip_forward

resolv=$(readlink -f /etc/resolv.conf || true)
for folder in /run /var/lib /var/log; do
    mount -t tmpfs -o mode=0755 tmpfs $folder
done
mkdir -p /run/netns /run/lock /run/sysctl

printf 'nameserver %s\nsearch cluster.local\noptions ndots:5\n' "$address" >/run/resolv.conf
if [ -n "$resolv" ]; then
    mkdir -p "$(dirname "$resolv")"
    [ -e "$resolv" ] || : >"$resolv"
    mount --bind /run/resolv.conf "$resolv"
fi

# The kubelet writes these; they belong to the whole machine. It gets files of its own instead.
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    copy=/run/sysctl/$(echo $setting | tr / _)
    cat "/proc/sys/$setting" >"$copy"
    mount --bind "$copy" "/proc/sys/$setting"
done

: >"$ready"
exec sleep infinity
