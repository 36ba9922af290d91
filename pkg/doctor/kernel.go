package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/daemon"
	"github.com/ringwall/ringwall/pkg/firewall"
)

// The links of the kernel.
const (
	version, capability, tables, ownership, element, others, tracking = "kernel", "capability", "nf_tables", "owner",
		"element", "others", "conntrack"
)

// kernel proves that bans reach the kernel, and looks at who else handles packets.
func (e *exam) kernel(ctx context.Context) {
	s := e.on("")
	e.kernelVersion(s)
	if !e.capable(s) {
		s.skipAll("needs CAP_NET_ADMIN", tables, ownership, element, others)
		e.conntrack(s)
		return
	}
	k, err := openNetlink(e.NetNS)
	if err == nil {
		defer k.close()
		_, err = k.lib.ListTablesOfFamily(nftables.TableFamilyINet)
	}
	if err != nil {
		s.fail(tables, "a kernel with nf_tables: modprobe nf_tables; in a container: --cap-add NET_ADMIN --network host", "the kernel's nf_tables does not answer: %s", text(err))
		s.skipAll("needs nf_tables", ownership, element, others)
		e.conntrack(s)
		return
	}
	s.ok(tables, "answers")
	e.owner(s)
	e.element(s)
	e.left(s, k)
	e.rivals(s, k)
	e.allowedPass(ctx, s, k)
	e.conntrack(s)
}

func (e *exam) kernelVersion(s subject) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		s.warn(version, "", "its version cannot be read: %s", text(err))
		return
	}
	s.kernelRelease(unix.ByteSliceToString(u.Release[:]))
}

// kernelRelease looks at what uname says. Linux has nf_tables from 3.13 on, and elements that end by themselves from
// 4.1 on (net/netfilter/nf_tables_api.c, NFT_SET_TIMEOUT); what distributions have put into older ones is not the
// same. These checks warn and do not fail, because the test address below is the proof.
func (s subject) kernelRelease(release string) {
	switch major, minor := numbers(release); {
	case major < 4 || major == 4 && minor < 1:
		s.warn(version, "FreePBX 17, whose Debian 12 has Linux 6.1; or Ringwall on a gateway before this machine (install.md, Other systems)",
			"%s is too old: its nf_tables cannot end a ban by itself, so do not count on any (CentOS 7, and FreePBX 16 on it, have 3.10)", release)
	case major < firewall.KernelMajor || major == firewall.KernelMajor && minor < firewall.KernelMinor:
		s.warn(version, firewall.NeedsKernel+" (Debian 11)", "%s is older than what Ringwall is made for", release)
	default:
		s.ok(version, "%s", release)
	}
}

// numbers reads the first two numbers of a release such as "6.12.57+deb13-amd64".
func numbers(release string) (major, minor int) {
	first, rest, _ := strings.Cut(release, ".")
	second := strings.FieldsFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	major, _ = strconv.Atoi(first)
	if len(second) > 0 {
		minor, _ = strconv.Atoi(second[0])
	}
	return major, minor
}

// capable asks for this process; the daemon has its own answer.
func (e *exam) capable(s subject) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&header, &data[0])
	if err == nil && data[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0 {
		s.ok(capability, "CAP_NET_ADMIN")
		return true
	}
	if e.daemon != nil && e.daemon.Kernel.OK {
		s.skip(capability, "sudo ringwall doctor", "the daemon has CAP_NET_ADMIN, but this command has not")
		return false
	}
	s.fail(capability, "sudo ringwall doctor", "this user may not touch the firewall (CAP_NET_ADMIN)")
	return false
}

// link is a lasting netlink connection; others cost 16 ms for each deletion.
type link struct{ lib *nftables.Conn }

func openNetlink(netns int) (*link, error) {
	lib, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(netns))
	if err != nil {
		return nil, err
	}
	return &link{lib}, nil
}

func (k *link) close() { _ = k.lib.CloseLasting() }

// owner asks whether the kernel knows the table flags owner and persist.
func (e *exam) owner(s subject) {
	if e.cfg.Firewall.Owner == config.OwnerOff {
		s.ok(ownership, "not wanted (firewall.owner: off): after nft flush ruleset the daemon puts the bans back")
		return
	}
	check, err := firewall.NewCheck(e.table())
	if err == nil {
		err = errors.Join(check.CanProtect(), check.Close())
	}
	switch {
	case err == nil:
		s.ok(ownership, "the table can be protected from nft flush ruleset (owner, persist)")
	case e.cfg.Firewall.Owner == config.OwnerOn:
		s.fail(ownership, "firewall.owner: auto, or a kernel from 6.9 on",
			"this kernel cannot protect the table (owner, persist), and firewall.owner is on: %s", text(err))
	default:
		s.ok(ownership, "this kernel, older than 6.9, cannot protect the table: after nft flush ruleset the daemon puts the bans back")
	}
}

// scratch is the name of a table that is not the real one.
func (e *exam) scratch() string {
	name := e.cfg.Firewall.Table
	return name[:min(len(name), 200)] + ".doctor"
}

// table is what the daemon would build.
func (e *exam) table() firewall.Config { return daemon.TableConfig(e.cfg, e.NetNS) }

// conntrack looks whether a flood has filled the table of connections, which shuts customers out whoever is banned.
func (e *exam) conntrack(s subject) {
	read := func(name string) (int, error) {
		b, err := os.ReadFile(filepath.Join(e.proc, "sys/net/netfilter", name))
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.TrimSpace(string(b)))
	}
	n, err := read("nf_conntrack_count")
	most, err2 := read("nf_conntrack_max")
	before := "banned packets are dropped before they are tracked"
	if e.cfg.Firewall.Priority >= -200 { // NF_IP_PRI_CONNTRACK, include/uapi/linux/netfilter_ipv4.h
		before = fmt.Sprintf("banned packets are tracked before they are dropped, since firewall.priority is %d",
			e.cfg.Firewall.Priority)
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		s.ok(tracking, "connections are not tracked here")
	case err != nil || err2 != nil || most <= 0:
		s.skip(tracking, "", "cannot be seen")
	case n > most/10*9:
		s.warn(tracking, fmt.Sprintf("sysctl net.netfilter.nf_conntrack_max=%d", 4*most),
			"%d of %d connections are in use: when it is full, new customers are dropped", n, most)
	case e.cfg.Firewall.Priority >= -200:
		s.warn(tracking, "firewall.priority: -300", "%s: a flood fills the table of %d connections", before, most)
	default:
		s.ok(tracking, "%d of %d connections in use; %s", n, most, before)
	}
}
