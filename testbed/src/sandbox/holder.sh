# Furnishes a node's own network and mounts, then only stays alive: holder.sh ADDRESS SERVICE_CIDR ADDRESS6 SERVICE_CIDR6 READY_FILE
set -e
PATH=$PATH:/usr/sbin:/sbin
address=$1
services=$2
address6=$3
services6=$4
ready=$5

# The node's address is on lo. Services are reached by a route for just their addresses, on a link that leads nowhere: the rules of
# kube-proxy rewrite packets before they leave. No default route: a pull of a missing image must fail at once, not hang.
ip link set lo up
ip addr add "$address/32" dev lo
ip link add svc0 type veth peer name svc1
ip link set svc0 up
ip link set svc1 up
ip route add "$services" dev svc0 src "$address"
echo 1 >/proc/sys/net/ipv4/ip_forward
# The same for IPv6, where the kernel has it. Nobody else is on this network who could have the address.
if [ -d /proc/sys/net/ipv6 ]; then
    ip -6 addr add "$address6/128" dev lo nodad
    ip -6 route add "$services6" dev svc0 src "$address6"
    echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
fi

resolv=$(readlink -f /etc/resolv.conf || true)
for folder in /run /var/lib /var/log; do
    mount -t tmpfs -o mode=0755 tmpfs $folder
done
mkdir -p /run/netns /run/lock /run/sysctl /run/etc/changes /run/etc/work
# Programs look for what they trust in fixed folders of /etc. The node sees the machine's; what is written there stays in the node.
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/changes,workdir=/run/etc/work overlay /etc

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
