package service

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// SSHClient returns the address from which the person who runs this program is logged in by SSH, and the port of
// the server, from SSH_CONNECTION (sshd(8): client address, client port, server address, server port). sudo drops it,
// so the environments of the parent processes in proc are asked too. The address is not valid where nobody is logged
// in so.
func SSHClient(lookup func(name string) string, proc string) (netip.Addr, uint16) {
	if a, port := parseSSHConnection(lookup("SSH_CONNECTION")); a.IsValid() {
		return a, port
	}
	pid := os.Getppid()
	for range 32 {
		if pid <= 1 {
			break
		}
		dir := filepath.Join(proc, strconv.Itoa(pid))
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil {
			break
		}
		for v := range strings.SplitSeq(string(env), "\x00") {
			if value, ok := strings.CutPrefix(v, "SSH_CONNECTION="); ok {
				return parseSSHConnection(value)
			}
		}
		if pid = parentPID(filepath.Join(dir, "status")); pid == 0 {
			break
		}
	}
	return netip.Addr{}, 0
}

func parseSSHConnection(value string) (netip.Addr, uint16) {
	f := strings.Fields(value)
	if len(f) != 4 {
		return netip.Addr{}, 0
	}
	a, err := netip.ParseAddr(f[0])
	port, err2 := strconv.ParseUint(f[3], 10, 16)
	if err != nil || err2 != nil {
		return netip.Addr{}, 0
	}
	return a.WithZone("").Unmap(), uint16(port)
}

func parentPID(status string) int {
	b, err := os.ReadFile(status)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "PPid:"); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(v))
			return n
		}
	}
	return 0
}
