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

// Names of the checks of the kernel.
const (
	checkKernel, checkCapability, checkNFTables, checkOwner, checkElement, checkOthers, checkConntrack = "kernel",
		"capability", "nf_tables", "owner",
		"element", "others", "conntrack"
)

// examineKernel proves that bans reach the kernel, and looks at who else handles packets.
func (e *exam) examineKernel(ctx context.Context) {
	s := e.subjectNamed("")
	e.examineKernelVersion(s)
	if !e.proveCapability(s) {
		s.skipAll("needs CAP_NET_ADMIN", checkNFTables, checkOwner, checkElement, checkOthers)
		e.examineConntrack(s)
		return
	}
	k, err := openNetlink(e.NetNS)
	if err == nil {
		defer k.close()
		_, err = k.lib.ListTablesOfFamily(nftables.TableFamilyINet)
	}
	if err != nil {
		s.fail(checkNFTables, "a kernel with nf_tables: modprobe nf_tables; in a container: --cap-add NET_ADMIN "+
			"--network host", "the kernel's nf_tables does not answer: %s", errorLine(err))
		s.skipAll("needs nf_tables", checkOwner, checkElement, checkOthers)
		e.examineConntrack(s)
		return
	}
	s.ok(checkNFTables, "answers")
	e.proveOwnerFlag(s)
	e.proveElement(s)
	e.examineBans(s, k)
	e.examineOtherFirewalls(s, k)
	e.examineAllowedSources(ctx, s)
	e.examineConntrack(s)
}

func (e *exam) examineKernelVersion(s subject) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		s.warn(checkKernel, "", "its version cannot be read: %s", errorLine(err))
		return
	}
	s.reportKernelRelease(unix.ByteSliceToString(u.Release[:]))
}

// reportKernelRelease looks at what uname says. Linux has nf_tables from 3.13 on, and elements that end by themselves
// from 4.1 on (net/netfilter/nf_tables_api.c, NFT_SET_TIMEOUT); what distributions have put into older ones is not
// the same. These checks warn and do not fail, because the test address below is the proof.
func (s subject) reportKernelRelease(release string) {
	switch major, minor := majorAndMinor(release); {
	case major < 4 || major == 4 && minor < 1:
		s.warn(checkKernel, "FreePBX 17, whose Debian 12 has Linux 6.1; or Ringwall on a gateway before this machine "+
			"(install.md, Other systems)",
			"%s is too old: its nf_tables cannot end a ban by itself, so do not count on any (CentOS 7, and FreePBX "+
				"16 on it, have 3.10)", release)
	case major < firewall.KernelMajor || major == firewall.KernelMajor && minor < firewall.KernelMinor:
		s.warn(checkKernel, firewall.NeedsKernel+" (Debian 11)", "%s is older than what Ringwall is made for", release)
	default:
		s.ok(checkKernel, "%s", release)
	}
}

// majorAndMinor reads the first two numbers of a release such as "6.12.57+deb13-amd64".
func majorAndMinor(release string) (major, minor int) {
	first, rest, _ := strings.Cut(release, ".")
	second := strings.FieldsFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	major, _ = strconv.Atoi(first)
	if len(second) > 0 {
		minor, _ = strconv.Atoi(second[0])
	}
	return major, minor
}

// proveCapability asks whether this process has CAP_NET_ADMIN, which later checks need. The daemon may have it all
// the same.
func (e *exam) proveCapability(s subject) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&header, &data[0])
	if err == nil && data[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0 {
		s.ok(checkCapability, "CAP_NET_ADMIN")
		return true
	}
	if e.daemon != nil && e.daemon.Kernel.OK {
		s.skip(checkCapability, "sudo ringwall doctor", "the daemon has CAP_NET_ADMIN, but this command has not")
		return false
	}
	s.fail(checkCapability, "sudo ringwall doctor", "this user may not touch the firewall (CAP_NET_ADMIN)")
	return false
}

// netlinkConn is a netlink connection that stays open: one that is opened for each request costs 16 ms per deletion.
type netlinkConn struct{ lib *nftables.Conn }

func openNetlink(netns int) (*netlinkConn, error) {
	lib, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(netns))
	if err != nil {
		return nil, err
	}
	return &netlinkConn{lib}, nil
}

func (k *netlinkConn) close() { _ = k.lib.CloseLasting() }

// proveOwnerFlag asks whether the kernel knows the table flags owner and persist.
func (e *exam) proveOwnerFlag(s subject) {
	if e.cfg.Firewall.Owner == config.OwnerOff {
		s.ok(checkOwner, "not wanted (firewall.owner: off): after nft flush ruleset the daemon puts the bans back")
		return
	}
	check, err := firewall.NewCheck(e.tableConfig())
	if err == nil {
		err = errors.Join(check.CanProtect(), check.Close())
	}
	switch {
	case err == nil:
		s.ok(checkOwner, "the table can be protected from nft flush ruleset (owner, persist)")
	case e.cfg.Firewall.Owner == config.OwnerOn:
		s.fail(checkOwner, "firewall.owner: auto, or a kernel from 6.9 on",
			"this kernel cannot protect the table (owner, persist), and firewall.owner is on: %s", errorLine(err))
	default:
		s.ok(checkOwner, "this kernel, older than 6.9, cannot protect the table: after nft flush ruleset the daemon "+
			"puts the bans back")
	}
}

// scratchTableName is the name of the table that proveInScratchTable builds and removes.
func (e *exam) scratchTableName() string {
	name := e.cfg.Firewall.Table
	return name[:min(len(name), 200)] + ".doctor"
}

// tableConfig describes the table that the daemon would build.
func (e *exam) tableConfig() firewall.Config { return daemon.TableConfig(e.cfg, e.NetNS) }

// examineConntrack looks whether a flood has filled the table of connections, which shuts customers out whoever is
// banned.
func (e *exam) examineConntrack(s subject) {
	read := func(name string) (int, error) {
		b, err := os.ReadFile(filepath.Join(e.procFolder, "sys/net/netfilter", name))
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
		s.ok(checkConntrack, "connections are not tracked here")
	case err != nil || err2 != nil || most <= 0:
		s.skip(checkConntrack, "", "cannot be seen")
	case n > most/10*9:
		s.warn(checkConntrack, fmt.Sprintf("sysctl net.netfilter.nf_conntrack_max=%d", 4*most),
			"%d of %d connections are in use: when it is full, new customers are dropped", n, most)
	case e.cfg.Firewall.Priority >= -200:
		s.warn(checkConntrack, "firewall.priority: -300", "%s: a flood fills the table of %d connections", before, most)
	default:
		s.ok(checkConntrack, "%d of %d connections in use; %s", n, most, before)
	}
}
