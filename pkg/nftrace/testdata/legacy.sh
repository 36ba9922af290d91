# What legacy.json is a recording of: amd64, Linux 6.18, iptables 1.8.11.
i="iptables-legacy -A INPUT"
iptables-legacy -P INPUT DROP
for chain in bad goes returns; do iptables-legacy -N $chain; done
iptables-legacy -A bad -p udp -m multiport --dports 5060,5061 -j REJECT
iptables-legacy -A bad -p tcp -j DROP
iptables-legacy -A goes -p udp --dport 53 -j ACCEPT
iptables-legacy -A returns -j RETURN
iptables-legacy -A returns -j DROP
$i -i lo -j ACCEPT
$i -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
$i ! -s 192.0.2.0/24 -j DROP
$i -s 192.0.2.1 -j DROP
$i -s 192.0.2.2 -p udp --dport 5060 -j ACCEPT
$i -s 192.0.2.2 -j DROP
$i -s 192.0.2.3 -j bad
$i -s 192.0.2.4 -g goes
$i -s 192.0.2.4 -j ACCEPT
$i -s 192.0.2.5 -j returns
$i -s 192.0.2.6 -m limit --limit 1/hour -j DROP
$i -s 192.0.2.7 -i eth+ -j DROP
$i -m recent --name BAD --rcheck -j DROP
$i -s 192.0.2.9 ! -d 224.0.0.0/4 -j DROP
$i -s 192.0.2.10 -f -j DROP
$i -s 192.0.2.11 ! -p icmp -j DROP
$i -s 192.0.2.12 -j NFQUEUE
$i -s 192.0.2.13
$i -s 192.0.2.14 -m comment --comment 'by hand' -j LOG
$i -s 192.0.2.14 -m comment --comment 'by hand' -j DROP
$i -s 192.0.2.128/25 -j DROP
$i -p udp -j ACCEPT
$i -p tcp --dport 5060 -j ACCEPT
iptables-legacy -t raw -A PREROUTING -s 203.0.113.0/25 -j DROP
i="ip6tables-legacy -A INPUT"
$i -s 2001:db8:1::/48 ! -i lo -j DROP
$i -s 2001:db8:2::/48 -i lo -j DROP
$i -s 2001:db8:3::1 -p udp --dport 5060 -j REJECT
$i -s 2001:db8:3::1 -p tcp --dport 5000:5100 -j DROP
$i -s 2001:db8:4::1 -d ff00::/8 -j DROP
