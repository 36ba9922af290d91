package daemon

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/ami"
	"github.com/ringwall/ringwall/pkg/hint"
)

// What the packages make for Asterisk: the user [ringwall] with this machine's secret, ready to be put in place.
const (
	readyFile = "/etc/ringwall/asterisk-manager.conf"
	readyUser = "ringwall"
)

// TriesAgain is the last line of a Remedy: when what was mended takes effect.
const TriesAgain = "Ringwall tries again by itself within 30 s; at once after: systemctl reload ringwall"

// Remedy says what to do about a failure of AMI, on several lines without a last line feed, or "". Where the package's
// ready file mends it, it says where that goes instead of what to write.
func Remedy(err error) string { return remedyUnder(err, "/") }

func remedyUnder(err error, root string) string {
	lines := strings.TrimSpace(hint.Of(err))
	if lines == "" {
		return ""
	}
	if ready := readyFileRemedy(err, root); ready != "" {
		lines = ready
	}
	return lines + "\n" + TriesAgain
}

// readyFileRemedy is how to put the ready file in place, or "" where it does not help. FreePBX writes manager.conf
// anew and keeps one file of the administrator's; it is known by the file that its programs begin with.
func readyFileRemedy(err error, root string) string {
	e, ok := errors.AsType[*ami.Error](err)
	if !ok || e.User != readyUser || !errors.Is(err, ami.ErrLogin) && !errors.Is(err, ami.ErrNoPrivilege) ||
		!isLoopbackAddress(e.Address) {
		return ""
	}
	if _, err := os.Stat(filepath.Join(root, readyFile)); err != nil {
		return ""
	}
	put := "install -o asterisk -g asterisk -m 0640 " + readyFile + " /etc/asterisk/manager.d/ringwall.conf"
	if _, err := os.Stat(filepath.Join(root, "/etc/freepbx.conf")); err == nil {
		put = "take an old [ringwall] out of /etc/asterisk/manager_custom.conf, then\ncat " + readyFile +
			" >>/etc/asterisk/manager_custom.conf"
	}
	return "give Asterisk the ready file, which has the user, the secret and read = security:\n" + put +
		"\nasterisk -rx \"manager reload\""
}

// isLoopbackAddress says whether an address is loopback: the ready file is for the Asterisk on this machine.
func isLoopbackAddress(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// failureAttrs are the attributes of a log line about a failed session: why, what to try, when it is tried again.
func failureAttrs(s ami.State) []any {
	list := []any{"err", s.Err}
	if try := Remedy(s.Err); try != "" {
		list = append(list, "try", oneLine(try))
	}
	if s.Retry > 0 {
		list = append(list, "retry_in", s.Retry.Round(time.Millisecond))
	}
	return list
}

// oneLine joins lines as people would write them on one.
func oneLine(lines string) string {
	return strings.ReplaceAll(strings.ReplaceAll(lines, ":\n", ": "), "\n", "; ")
}
