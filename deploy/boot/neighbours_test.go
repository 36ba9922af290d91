package boot

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// The tests of this file have others who write rules into the kernel's firewall beside Ringwall, as they do it
// themselves: whatever they start, reload and stop, no ban is lost for longer than lostAtMost, nothing of theirs is
// changed by Ringwall, and doctor says whom of those that Ringwall lets in they keep out, and what lets him in.

// lostAtMost is for how long packets of a banned source may get through after others have taken Ringwall's table.
const lostAtMost = 500 * time.Millisecond

// unowned leaves the table to everybody, as a kernel before 6.9 does.
const unowned = enforce + "firewall: {owner: off}\n"

// neighbourly makes a machine with a ban, and an address that is allowed.
func neighbourly(t *testing.T, configuration string) *machine {
	t.Helper()
	m := newMachineOf(t, otherFirewalls, configuration)
	m.run("ringwall allow add " + good)
	m.ban(first)
	return m
}

// probe sends packets of the banned address while something happens, and some time longer, and returns for how long at
// a stretch they came through, and how late the sender itself was at most.
func (m *machine) probe(do func()) (through, late time.Duration) {
	m.t.Helper()
	const interval, afterwards = 5 * time.Millisecond, time.Second
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(first), 0))}
	c, err := m.others.Dial(m.t.Context(), d, "udp4", net.JoinHostPort(self, "5060"))
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	number := m.number.Add(1)
	stop := make(chan struct{})
	var sent []time.Time
	var sender sync.WaitGroup
	sender.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(interval):
			}
			sent = append(sent, time.Now())
			_, _ = fmt.Fprintf(c, "probe %d %d", number, i)
		}
	})
	do()
	time.Sleep(afterwards) // the table may be taken a moment after the command has ended
	close(stop)
	sender.Wait()
	m.arrives(neutral, 5060) // what was sent before has come by then
	var since time.Time
	for i, at := range sent {
		if i > 0 {
			late = max(late, at.Sub(sent[i-1])-interval)
		}
		if _, came := m.seen.Load(fmt.Sprintf("5060 %s probe %d %d", first, number, i)); !came {
			since = time.Time{}
			continue
		}
		if since.IsZero() {
			since = at
		}
		through = max(through, at.Sub(since)+interval)
	}
	return through, late
}

// beside runs a neighbour's commands, and fails the test where a ban is lost for too long or for good, or somebody else
// is kept out.
func (m *machine) beside(script string) {
	m.t.Helper()
	through, late := m.probe(func() { m.run(script) })
	first3, _, _ := strings.Cut(strings.TrimSpace(script), "\n")
	m.t.Logf("%s: the banned came through for %s", first3, through.Round(time.Millisecond))
	// A machine that lets the sender wait lets Ringwall wait, too.
	if through > lostAtMost+5*late {
		m.t.Errorf("%s: the ban was lost for %s, want %s at most (the sender was %s late)", script, through, lostAtMost,
			late)
	}
	m.keptOut(first)
	m.letIn(good)
	if !m.inSet(first) {
		m.t.Errorf("%s: the ban is not in the kernel", script)
	}
}

// theirs are all rules of others, without counters.
const theirs = `{ nft -s list ruleset; iptables-legacy-save; } 2>/dev/null |
	awk '/^table inet ringwall /{ours=1} !ours && !/^#/ && !/^:/ {print} /^}/{ours=0}'`

// leavesThemAlone has Ringwall do all that it ever does to the kernel, and wants the rules of others as they were.
func (m *machine) leavesThemAlone() {
	m.t.Helper()
	before := m.run(theirs)
	m.run("systemctl reload ringwall; ringwall doctor >/dev/null; systemctl restart ringwall")
	m.heard()
	m.ban(second)
	m.run("ringwall unban " + second)
	if after := m.run(theirs); after != before {
		m.t.Errorf("Ringwall changed the rules of others, from\n%s\nto\n%s", before, after)
	}
	m.keptOut(first)
}

// shutOut has a neighbour keep out the address that is allowed, and wants doctor and status to say so, and doctor to
// name the command after which it is let in.
func (m *machine) shutOut(script, remedy string) {
	m.t.Helper()
	m.run(script)
	if m.arrives(good, 5060) {
		m.t.Errorf("%s: it does not keep %s out", script, good)
		return
	}
	m.says("ringwall doctor", 1, good+" is on the allow list, and another firewall drops", remedy)
	if m.t.Failed() {
		return
	}
	m.until("status says so", func() bool {
		out, _ := m.try("ringwall status")
		return strings.Contains(strings.Join(strings.Fields(out), " "), remedy)
	})
	m.run(remedy)
	m.letIn(good)
	m.says("ringwall doctor", 0, "It works")
}

// TestNftablesServiceFlushesAllRules has the service of Debian's package, whose file begins with flush ruleset.
func TestNftablesServiceFlushesAllRules(t *testing.T) {
	m := neighbourly(t, unowned)
	m.write("/etc/nftables.conf", `#!/usr/sbin/nft -f
flush ruleset
table inet filter {
	set bad { type ipv4_addr; elements = { 192.0.2.99 }; }
	chain input {
		type filter hook input priority filter; policy drop;
		iif lo accept
		ct state established,related accept
		ip saddr @bad drop
		udp dport { 5060, 5080 } accept
		tcp dport { 22, 5060 } accept
	}
}
`)
	m.beside("systemctl start nftables")
	m.beside("systemctl reload nftables")
	m.leavesThemAlone()
	m.run("nft add element inet filter bad '{ " + good + " }'")
	m.says("ringwall doctor", 1, good+" is on the allow list", "nft list chain inet filter input")
	m.beside("systemctl reload nftables") // which takes that back
	m.beside("systemctl stop nftables")

	// Where the kernel knows owners a flush leaves the table alone.
	m.configure(enforce)
	m.run("systemctl restart ringwall")
	m.heard()
	m.beside("systemctl start nftables")
	m.beside("systemctl reload nftables")
}

// TestIptablesBesideRingwall has rules of iptables, of the kind that is made of nftables and of the older one, and
// Docker's chains.
func TestIptablesBesideRingwall(t *testing.T) {
	m := neighbourly(t, unowned)
	m.beside(`set -e
		iptables -P INPUT DROP
		iptables -A INPUT -i lo -j ACCEPT
		iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
		iptables -A INPUT -p udp -m multiport --dports 5060,5080 -m comment --comment sip -j ACCEPT
		iptables -A INPUT -p tcp --dport 5060 -j ACCEPT`)
	m.beside(`set -e
		iptables -N DOCKER; iptables -N DOCKER-USER; iptables -N DOCKER-ISOLATION-STAGE-1
		iptables -P FORWARD DROP
		iptables -A FORWARD -j DOCKER-USER; iptables -A FORWARD -j DOCKER-ISOLATION-STAGE-1
		iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
		iptables -A FORWARD -o docker0 -j DOCKER
		iptables -A DOCKER-USER -j RETURN; iptables -A DOCKER-ISOLATION-STAGE-1 -j RETURN
		iptables -t nat -N DOCKER
		iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
		iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
		iptables -t nat -A DOCKER -i docker0 -j RETURN
		iptables -t nat -A DOCKER ! -i docker0 -p tcp --dport 8081 -j DNAT --to-destination 172.17.0.2:80`)
	m.leavesThemAlone()
	m.shutOut("iptables -I INPUT 2 -s "+good+" -j DROP", "iptables -I INPUT -s "+good+" -j ACCEPT")
	m.beside("iptables-save >/root/rules; iptables-restore </root/rules")
	m.beside("iptables -P INPUT ACCEPT; iptables -F; iptables -X; iptables -t nat -F; iptables -t nat -X")

	// The older kind, whose rules nft does not show.
	m.beside(`set -e
		iptables-legacy -A INPUT -p tcp --dport 80 -j DROP
		iptables-legacy -A INPUT -m recent --rcheck --name MINE --rsource -j DROP`)
	m.leavesThemAlone()
	m.run("echo +" + good + " >/proc/net/xt_recent/MINE")
	if m.arrives(good, 5060) {
		t.Error("a list of iptables-legacy does not keep the allowed address out")
	}
	dropped := good + " is on the allow list, and another firewall drops what it sends to Asterisk: chain iptables-legacy filter"
	m.says("ringwall doctor", 1, dropped+" INPUT", "echo -"+good+" >/proc/net/xt_recent/MINE")
	m.run("echo -" + good + " >/proc/net/xt_recent/MINE")
	m.letIn(good)
	m.says("ringwall doctor", 0, "It works")
	// Whoever is not root is not told of these rules, and so the daemon and its status are not.
	m.run("iptables-legacy -N office; iptables-legacy -A office -s " + good + " -j REJECT; iptables-legacy -A INPUT -j office")
	if m.arrives(good, 5060) {
		t.Error("a rule of iptables-legacy does not keep the allowed address out")
	}
	remedy := "iptables-legacy -I INPUT -s " + good + " -j ACCEPT"
	m.says("ringwall doctor", 1, dropped, remedy, "iptables-legacy -S office")
	m.run(remedy)
	m.letIn(good)
	m.says("ringwall doctor", 0, "It works")
	m.beside("iptables-legacy -F; iptables-legacy -X")
}

// freePBX are the rules that FreePBX's firewall makes at its start, in its order, with what an administrator says:
// phones of neutral's network are trusted, and everybody else is limited (responsive firewall).
const freePBX = `set -e
for chain in fpbxfirewall fpbx-rtp fpbxsignalling fpbxsmarthosts fpbxregistrations fpbxnets fpbxhosts fpbxblacklist \
	fpbxinterfaces fpbxrfw fpbxlogdrop fpbxattacker fpbxshortblock fpbxknownreg fpbxsvc-ucp zone-trusted; do
	iptables -N $chain
done
iptables -I INPUT -j fpbxfirewall
f="iptables -A fpbxfirewall"
$f -i lo -j ACCEPT
$f -p tcp -m state --state RELATED,ESTABLISHED -j ACCEPT
$f -p udp -m udp --sport 1:1024 -m state --state RELATED,ESTABLISHED -j ACCEPT
$f -p icmp -j ACCEPT
$f -d 255.255.255.255/32 -j ACCEPT
$f -m pkttype --pkt-type multicast -j ACCEPT
$f -p udp -m udp --dport 67:68 --sport 67:68 -j ACCEPT
for chain in fpbx-rtp fpbxsignalling fpbxsmarthosts fpbxregistrations fpbxnets fpbxhosts fpbxblacklist \
	fpbxinterfaces; do
	$f -j $chain
done
$f -m mark --mark 0x2/0x2 -j fpbxrfw
$f -j fpbxlogdrop
iptables -A zone-trusted -j ACCEPT
iptables -A fpbx-rtp -p udp -m udp --dport 10000:20000 -j ACCEPT
iptables -A fpbxsignalling -p udp -m udp --dport 5060 -j MARK --set-xmark 0x3/0xffffffff
iptables -A fpbxsignalling -p tcp -m tcp --dport 5060 -j MARK --set-xmark 0x3/0xffffffff
iptables -A fpbxnets -s ` + neutral + `/32 -j zone-trusted
r="iptables -A fpbxrfw -m recent"
$r --set --name REPEAT --rsource
$r --rcheck --seconds 10 --hitcount 50 --name REPEAT --rsource -j fpbxattacker
$r --rcheck --seconds 86400 --hitcount 1 --name ATTACKER --rsource -j fpbxattacker
$r --rcheck --seconds 60 --hitcount 10 --name SIGNALLING --rsource -j fpbxshortblock
$r --set --name SIGNALLING --rsource
$r --rcheck --seconds 86400 --hitcount 100 --name REPEAT --rsource -j fpbxattacker
iptables -A fpbxrfw -j ACCEPT
iptables -A fpbxattacker -m recent --set --name ATTACKER --rsource
iptables -A fpbxattacker -j LOG --log-prefix 'attacker: '
iptables -A fpbxattacker -j DROP
iptables -A fpbxshortblock -m recent --set --name CLAMPED --rsource
iptables -A fpbxshortblock -j LOG --log-prefix 'clamped: '
iptables -A fpbxshortblock -j REJECT
iptables -A fpbxlogdrop -j REJECT
iptables -A fpbxknownreg -m mark --mark 0x1/0x1 -j ACCEPT
iptables -A fpbxknownreg -j fpbxsvc-ucp`

// TestFreePBXFirewallBesideRingwall has its lists keep out somebody whom Ringwall lets in, as they do with an office
// that registers too many phones at once.
func TestFreePBXFirewallBesideRingwall(t *testing.T) {
	m := neighbourly(t, unowned)
	m.beside(freePBX)
	m.leavesThemAlone()

	// Its fwconsole is not here: what it does is a rule of the network.
	m.write("/usr/sbin/fwconsole",
		"#!/bin/sh\n[ \"$1 $2\" = 'firewall trust' ] && exec iptables -A fpbxnets -s $3 -j zone-trusted\n")
	m.run("chmod 755 /usr/sbin/fwconsole")
	for range 4 { // each sends some packets: the eleventh is too many
		m.arrives(good, 5060)
	}
	m.says("cat /proc/net/xt_recent/SIGNALLING", 0, "src="+good)
	m.says("ringwall doctor", 1, good+" is on the allow list, and another firewall drops",
		"echo -"+good+" >/proc/net/xt_recent/SIGNALLING")
	m.run("echo -" + good + " >/proc/net/xt_recent/SIGNALLING; echo -" + good + " >/proc/net/xt_recent/REPEAT")
	m.letIn(good)
	m.shutOut("echo +"+good+" >/proc/net/xt_recent/ATTACKER",
		"echo -"+good+" >/proc/net/xt_recent/ATTACKER; fwconsole firewall trust "+good)

	// What its stop does (bin/clean-iptables of its module).
	m.beside("iptables -F; iptables -X; iptables -t nat -F; iptables -t nat -X; ip6tables -F; ip6tables -X")
	m.beside(freePBX)
}

// TestFail2banBesideRingwall has its two ways to ban.
func TestFail2banBesideRingwall(t *testing.T) {
	m := neighbourly(t, unowned)
	m.run("mkdir -p /var/log/asterisk; : >/var/log/asterisk/security")
	for _, action := range []string{"nftables-multiport", "iptables-multiport"} {
		m.write("/etc/fail2ban/jail.d/asterisk.local", "[DEFAULT]\nbanaction = "+action+`
[sshd]
enabled = false
[asterisk]
enabled = true
backend = polling
logpath = /var/log/asterisk/security
`)
		m.beside("systemctl start fail2ban; until fail2ban-client ping; do sleep 0.2; done")
		m.shutOut("fail2ban-client set asterisk banip "+good, "fail2ban-client unban "+good)
		m.run("fail2ban-client set asterisk banip " + third)
		m.leavesThemAlone()
		m.beside("systemctl reload fail2ban")
		m.beside("systemctl stop fail2ban")
		m.letIn(third)
	}
}

// TestUfwBesideRingwall denies what nobody allowed.
func TestUfwBesideRingwall(t *testing.T) {
	m := neighbourly(t, unowned)
	m.beside("ufw allow 5060 && ufw --force enable")
	m.leavesThemAlone()
	m.shutOut("ufw prepend deny from "+good, "ufw delete deny from "+good+"; ufw prepend allow from "+good)
	m.beside("ufw reload")
	m.beside("ufw --force disable")
	m.beside("ufw --force reset")
}

// TestFirewalldBesideRingwall lets in what a zone names.
func TestFirewalldBesideRingwall(t *testing.T) {
	m := neighbourly(t, unowned)
	m.beside("systemctl start dbus firewalld && firewall-cmd --add-port=5060/udp --add-port=5060/tcp")
	m.leavesThemAlone()
	m.shutOut("firewall-cmd --zone=drop --add-source="+good, "firewall-cmd --zone=trusted --change-source="+good)
	m.beside("firewall-cmd --reload && firewall-cmd --add-port=5060/udp --add-port=5060/tcp")
	m.beside("systemctl stop firewalld")
}
