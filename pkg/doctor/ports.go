package doctor

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/humanize"
)

// checkPorts is the name of the check of ports.
const checkPorts = "ports"

// examinePorts compares the ports that a ban closes with those at which Asterisk receives: what the daemon found by its
// events, and what the sockets of an Asterisk on this machine say to root.
func (e *exam) examinePorts(context.Context) {
	s := e.subjectNamed("")
	e.examineLeaks(s)
	now := api.PortsStatus{
		Auto: e.cfg.Firewall.Ports.Auto, All: e.cfg.Firewall.Scope == config.ScopeAll,
		UDP: e.cfg.Firewall.Ports.UDP, TCP: e.cfg.Firewall.Ports.TCP,
	}
	if e.daemon != nil && (e.daemon.Ports.All || len(e.daemon.Ports.UDP)+len(e.daemon.Ports.TCP) > 0) {
		now = e.daemon.Ports
	}
	if now.All {
		s.ok(checkPorts, "a ban closes every port (firewall.scope: all)")
		return
	}
	open, unheard := now.OpenPorts(), []api.FoundPort(nil)
	sockets, err := e.asteriskPorts()
	for _, p := range sockets {
		list := now.TCP
		if p.Protocol == "udp" {
			list = now.UDP
		}
		same := func(f api.FoundPort) bool { return f.Protocol == p.Protocol && f.Port == p.Port }
		switch {
		case slices.Contains(list, p.Port) || slices.ContainsFunc(open, same):
		case now.Auto:
			unheard = append(unheard, p)
		default:
			open = append(open, p)
		}
	}
	switch {
	case now.Error != "":
		s.fail(checkPorts, "ringwall status", "a port of Asterisk is open to the banned: %s", now.Error)
	case len(open) > 0:
		s.fail(checkPorts, "in "+e.ConfigPath+": "+now.ConfigLine(open)+
			"\nor: firewall: {ports: auto}\nand then run: systemctl reload ringwall",
			"bans stop nothing at %s: Asterisk listens there, and firewall.ports leaves it open", portNames(open))
	case len(unheard) > 0:
		s.warn(checkPorts, "none is needed; to close it now, in "+e.ConfigPath+": "+now.ConfigLine(unheard),
			"Asterisk listens at %s too: closed to the banned from its first event there on", portNames(unheard))
	case err != nil:
		s.ok(checkPorts, "a ban closes %s; whether Asterisk listens elsewhere cannot be seen from here (%s)",
			now.ClosedPorts(), errorLine(err))
	default:
		s.ok(checkPorts, "a ban closes %s, and Asterisk was found at no other port", now.ClosedPorts())
	}
}

// examineLeaks says whether banned sources got through lately.
func (e *exam) examineLeaks(s subject) {
	if e.daemon == nil || e.daemon.Engine.Leaking == 0 || e.daemon.Engine.LastLeak == nil {
		return
	}
	n := humanize.Plural(e.daemon.Engine.Leaking, "banned source", "banned sources")
	ago := roughDuration(max(0, e.daemon.Time.Sub(*e.daemon.Engine.LastLeak).Round(time.Second)))
	const fix = "ringwall history, for the ports that they came to: those belong in firewall.ports,\n" +
		"or: firewall: {ports: auto}\n" +
		"If they are there, Asterisk's packets do not come through this machine's firewall: run Ringwall where they do"
	if e.daemon.Leaking() {
		s.fail("leaks", fix, "%s still got through to Asterisk, the last time %s ago", n, ago)
		return
	}
	s.warn("leaks", fix, "%s got through to Asterisk within the last hour, the last time %s ago", n, ago)
}

func portNames(list []api.FoundPort) string {
	names := make([]string, len(list))
	for i, p := range list {
		names[i] = p.Name()
	}
	return strings.Join(names, ", ")
}

// errNoAsterisk says that no process of that name is to be seen in this network namespace.
var errNoAsterisk = errors.New("no process asterisk with this machine's network")

// asteriskPorts lists the ports at which a process named asterisk receives from other machines. Whose a socket is,
// proc(5) tells root alone. Sockets of calls (RTP, UDPTL) and of questions to name servers are left out by their
// ports.
func (e *exam) asteriskPorts() ([]api.FoundPort, error) {
	dirs, _ := filepath.Glob(filepath.Join(e.procFolder, "[0-9]*"))
	own, _ := os.Readlink(filepath.Join(e.procFolder, "self/ns/net"))
	var list []api.FoundPort
	var failed error = errNoAsterisk
	for _, dir := range dirs {
		comm, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil || strings.TrimSpace(string(comm)) != "asterisk" {
			continue
		}
		inodes, err := socketInodes(dir)
		if err != nil {
			failed = errors.New("only root sees Asterisk's sockets")
			continue
		}
		if net, err := os.Readlink(filepath.Join(dir, "ns/net")); err == nil && net != own {
			continue // in a container: other machines reach the ports that are published for it
		}
		failed = nil
		for _, name := range []string{"udp", "udp6", "tcp", "tcp6"} {
			table, err := os.ReadFile(filepath.Join(dir, "net", name))
			if err != nil {
				continue
			}
			for _, p := range e.readSocketTable(table, strings.TrimSuffix(name, "6"), inodes) {
				if !slices.Contains(list, p) {
					list = append(list, p)
				}
			}
		}
	}
	slices.SortFunc(list, func(a, b api.FoundPort) int {
		return strings.Compare(fmt.Sprintf("%s%05d", b.Protocol, a.Port), fmt.Sprintf("%s%05d", a.Protocol, b.Port))
	})
	return list, failed
}

// socketInodes returns the inodes of the sockets that a process has open; procDir is its folder in proc(5).
func socketInodes(procDir string) (map[string]bool, error) {
	fds, err := os.ReadDir(filepath.Join(procDir, "fd"))
	if err != nil {
		return nil, err
	}
	inodes := make(map[string]bool)
	for _, fd := range fds {
		if to, err := os.Readlink(filepath.Join(procDir, "fd", fd.Name())); err == nil &&
			strings.HasPrefix(to, "socket:[") {
			inodes[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] = true
		}
	}
	return inodes, nil
}

// The states of sockets in proc(5), as in include/net/tcp_states.h: a listener, and a UDP socket without a peer.
const tcpListen, udpOpen = "0A", "07"

// readSocketTable reads a table such as /proc/net/udp: sl, local_address, rem_address, st, …, inode in the tenth
// column.
func (e *exam) readSocketTable(table []byte, protocol string, inodes map[string]bool) (list []api.FoundPort) {
	low, high := e.rtpPorts()
	for lines := bufio.NewScanner(bytes.NewReader(table)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || !inodes[f[9]] {
			continue
		}
		at, ok := readSocketAddress(f[1])
		if !ok || at.Addr().IsLoopback() || at.Port() == 0 {
			continue
		}
		p := at.Port()
		udp := protocol == "udp"
		switch {
		case !udp && f[3] != tcpListen, udp && f[3] != udpOpen:
		case udp && (p >= low && p <= high || p >= 4000 && p <= 4999 || p >= 32768): // RTP, UDPTL, ip_local_port_range
		default:
			list = append(list, api.FoundPort{Protocol: protocol, Port: p, Open: true})
		}
	}
	return list
}

// rtpPorts is the range of ports of calls, from rtp.conf beside manager.conf.
func (e *exam) rtpPorts() (low, high uint16) {
	low, high = 10000, 20000
	text, err := os.ReadFile(filepath.Join(filepath.Dir(e.managerConf), "rtp.conf"))
	if errors.Is(err, fs.ErrNotExist) {
		return low, high
	}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, ";")
		key, value, _ := strings.Cut(line, "=")
		n, err := strconv.ParseUint(strings.TrimSpace(strings.TrimPrefix(value, ">")), 10, 16)
		if err != nil {
			continue
		}
		switch strings.TrimSpace(key) {
		case "rtpstart":
			low = uint16(n)
		case "rtpend":
			high = uint16(n)
		}
	}
	return low, high
}

// readSocketAddress reads "0100007F:13C4": 32-bit words as the machine has them in memory, and the port.
func readSocketAddress(text string) (netip.AddrPort, bool) {
	addr, port, _ := strings.Cut(text, ":")
	b, err := hex.DecodeString(addr)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 { // each word is printed as a number of the machine's
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), true
}
