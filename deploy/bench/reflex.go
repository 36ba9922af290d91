package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/netns"
)

// reflexAddress is where the reflex gets its events, in its namespace.
const reflexAddress = "127.0.0.1:5039"

// reflexArgument is the argument with which the program calls itself to be the reflex.
const reflexArgument = "reflex"

// runReflex does the least that a program can do: it blocks in read(2), takes the address from the event's last line,
// writes it into a transaction that was made before, and sends that. It judges nothing, remembers nothing and never
// looks whether the kernel agrees. What it takes is what the machine takes.
func runReflex() error {
	runtime.LockOSThread()
	nl, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	kernel := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	if err := unix.Bind(nl, kernel); err != nil {
		return err
	}
	in, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	a := netip.MustParseAddrPort(reflexAddress)
	if err := unix.Connect(in, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}); err != nil {
		return err
	}
	batch, key, err := preparedTransaction()
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(in, buf)
		if n <= 0 {
			return err
		}
		_, rest, _ := bytes.Cut(buf[bytes.LastIndex(buf[:n], []byte("RemoteAddress: ")):n], []byte("TCP/"))
		text, _, _ := bytes.Cut(rest, []byte("/"))
		from, err := netip.ParseAddr(string(text))
		if err != nil {
			return err
		}
		four := from.As4()
		copy(batch[key:], four[:])
		if err := unix.Sendto(nl, batch, 0, kernel); err != nil {
			return err
		}
	}
}

// preparedTransaction returns a transaction that adds an element to the set of bareTable, and where in it the address
// is.
func preparedTransaction() (batch []byte, key int, err error) {
	where := []byte{0xde, 0xad, 0xbe, 0xef}
	value, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_DATA_VALUE, Data: where}})
	if err != nil {
		return nil, 0, err
	}
	element, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_KEY | unix.NLA_F_NESTED, Data: value},
		{Type: unix.NFTA_SET_ELEM_TIMEOUT, Data: binary.BigEndian.AppendUint64(nil, uint64(time.Hour.Milliseconds()))},
	})
	if err != nil {
		return nil, 0, err
	}
	list, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_LIST_ELEM | unix.NLA_F_NESTED,
		Data: element}})
	if err != nil {
		return nil, 0, err
	}
	body, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: []byte("bare\x00")},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte("ban4\x00")},
		{Type: unix.NFTA_SET_ELEM_LIST_ELEMENTS | unix.NLA_F_NESTED, Data: list},
	})
	if err != nil {
		return nil, 0, err
	}
	bound := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}
	for i, m := range []netlink.Message{
		{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_BEGIN, Flags: netlink.Request}, Data: bound},
		{Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWSETELEM,
			Flags: netlink.Request | netlink.Create},
			Data: append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, body...)},
		{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_END, Flags: netlink.Request}, Data: bound},
	} {
		m.Header.Length, m.Header.Sequence = uint32(unix.NLMSG_HDRLEN+len(m.Data)), uint32(i+1)
		b, err := m.MarshalBinary()
		if err != nil {
			return nil, 0, err
		}
		batch = append(batch, b...)
	}
	return batch, bytes.Index(batch, where), nil
}

// bareTable makes a table that drops what is in its set.
func bareTable(s *netns.Space) error {
	c, err := nftables.New(nftables.WithNetNSFd(s.FD()))
	if err != nil {
		return err
	}
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "bare"})
	set := &nftables.Set{Table: t, Name: "ban4", KeyType: nftables.TypeIPAddr, HasTimeout: true, Size: 1 << 20}
	if err := c.AddSet(set, nil); err != nil {
		return err
	}
	chain := c.AddChain(&nftables.Chain{Table: t, Name: "prerouting", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRef(-300)})
	c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Lookup{SourceRegister: 1, SetName: "ban4"},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	return c.Flush()
}

// measureReflex is the reaction of the reflex, measured as that of the program.
func measureReflex(ctx context.Context, o *options) (took []time.Duration, err error) {
	inside, err := netns.New()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, inside.Close()) }()
	outside, err := newAttackerSpace(inside, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, outside.Close()) }()
	if err := bareTable(inside); err != nil {
		return nil, err
	}
	l, err := inside.Listen(ctx, "tcp", reflexAddress)
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.Close() }()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := inside.Start(exec.CommandContext(ctx, self, reflexArgument))
	if err != nil {
		return nil, err
	}
	defer p.Kill()
	came := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			came <- c
		}
	}()
	select {
	case c := <-came:
		defer func() { _ = c.Close() }()
		return runTrials(ctx, o, inside, outside, func() net.Conn { return c })
	case <-time.After(patience):
		return nil, fmt.Errorf("the reflex does not come: %s", p.Output())
	}
}
