package fail2ban

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/printable"
)

// DefaultSocket is where the running fail2ban listens.
const DefaultSocket = "/var/run/fail2ban/fail2ban.sock"

// Bounds of what the running fail2ban is asked for.
const (
	connectTimeout = 3 * time.Second
	maxJails       = 1000
	maxLine        = 4096 // bytes of an answer's line; the beginning of a longer one would be another address
)

// fail2banServer is the running fail2ban.
type fail2banServer struct {
	socket string
	zone   *time.Location // in which it writes times
}

// errNotRunning is a fail2ban that does not listen, or one that is not the one of the files.
var errNotRunning = errors.New("fail2ban does not run")

// connectServer finds the running fail2ban. Its client takes over objects that the other end of the socket describes in
// a way that can run programs (pickle), so that end must be root's, or the caller's own.
func connectServer(ctx context.Context, socket string) (*fail2banServer, error) {
	dialer := net.Dialer{Timeout: connectTimeout}
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotRunning, err)
	}
	defer func() { _ = conn.Close() }()
	peer, err := peerOf(conn)
	if err != nil {
		return nil, err
	}
	if peer.Uid != 0 && int(peer.Uid) != os.Getuid() {
		return nil, fmt.Errorf("who listens at %s is user %d, not root", quotePath(socket), peer.Uid)
	}
	zone, err := zoneOf(int(peer.Pid))
	if err != nil {
		return nil, fmt.Errorf("the time zone of fail2ban: %w", err)
	}
	return &fail2banServer{socket: socket, zone: zone}, nil
}

// peerOf returns who listens at the other end of a Unix socket (unix(7), SO_PEERCRED).
func peerOf(conn net.Conn) (peer *unix.Ucred, err error) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	if failed := raw.Control(func(fd uintptr) {
		peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); failed != nil {
		return nil, failed
	}
	return peer, err
}

// zoneOf returns the local time of a process: that of its TZ, else the machine's. TZ in this process may be another
// one, as that of a person's shell.
func zoneOf(pid int) (*time.Location, error) {
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return nil, err
	}
	for entry := range strings.SplitSeq(string(environment), "\x00") {
		if tz, ok := strings.CutPrefix(entry, "TZ="); ok {
			return loadZone(tz)
		}
	}
	return zoneFile("/etc/localtime")
}

// loadZone follows tzset(3), but for zones that are written out as rules, which are an error.
func loadZone(tz string) (*time.Location, error) {
	tz = strings.TrimPrefix(tz, ":")
	if strings.HasPrefix(tz, "/") {
		return zoneFile(tz)
	}
	return time.LoadLocation(tz) // "" is UTC for both
}

func zoneFile(path string) (*time.Location, error) {
	data, err := readSmall(path)
	if errors.Is(err, os.ErrNotExist) {
		return time.UTC, nil
	}
	if err != nil {
		return nil, err
	}
	return time.LoadLocationFromTZData("Local", []byte(data))
}

// askBans asks for the bans of all jails. The server must be the one that uses the database of the files; of another
// one, as where the files are a copy from elsewhere, it is errNotRunning.
func (s *fail2banServer) askBans(ctx context.Context, database string, now time.Time) (*banRecords, []string, error) {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	var used string
	if err := s.runClient(ctx, func(line string) error {
		used = line
		return nil
	}, "get", "dbfile"); err != nil {
		return nil, nil, err
	}
	// It says that there is none, or "Current database file is:" and the path behind "`- ".
	if path, ok := strings.CutPrefix(used, "`- "); ok != isFile(database) || ok && path != database {
		return nil, nil, fmt.Errorf("%w with the database %s", errNotRunning, quotePath(database))
	}
	jails, err := s.askJails(ctx)
	if err != nil {
		return nil, nil, err
	}
	records := &banRecords{past: map[string][]string{}}
	for _, jail := range jails {
		err := s.runClient(ctx, func(line string) error {
			if line == "" {
				return nil // a jail without bans has one empty line
			}
			row, err := parseBan(line, s.zone, now)
			if row.jail = jail; err != nil {
				return err
			}
			if records.more = records.more || len(records.rows) == maxRows; !records.more {
				records.rows = append(records.rows, row)
			}
			return nil
		}, "get", jail, "banip", "--with-time")
		if err != nil {
			return nil, nil, fmt.Errorf("the bans of jail %s: %w", printable.Quote(jail), err)
		}
	}
	return records, jails, nil
}

// askJails asks for the names of the jails that are on.
func (s *fail2banServer) askJails(ctx context.Context) (names []string, err error) {
	err = s.runClient(ctx, func(line string) error {
		if _, list, ok := strings.Cut(line, "Jail list:"); ok && strings.TrimSpace(list) != "" {
			names = strings.Split(strings.TrimSpace(list), ", ")
		}
		return nil
	}, "status")
	if len(names) > maxJails {
		return nil, fmt.Errorf("it has more than %d jails", maxJails)
	}
	return names, err
}

// runClient runs a command of fail2ban's client and hands over each line that it prints.
func (s *fail2banServer) runClient(ctx context.Context, take func(line string) error, command ...string) error {
	cmd := exec.CommandContext(ctx, "fail2ban-client", append([]string{"-s", s.socket}, command...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	cmd.WaitDelay = connectTimeout
	var trouble limitedBuffer
	cmd.Stderr = &trouble
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, maxLine)
	last := ""
	for err == nil && lines.Scan() {
		last = strings.TrimRight(lines.Text(), "\r")
		err = take(last)
	}
	if err == nil {
		err = lines.Err()
	}
	_, drained := io.Copy(io.Discard, out)
	switch failed := cmd.Wait(); {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case failed != nil:
		return fmt.Errorf("fail2ban-client: %s", lastLine(last+"\n"+trouble.String(), failed))
	case err != nil:
		return err
	}
	return drained
}

// An address, when its ban began, for how many seconds it is, and its end, as server/banmanager.py writes them
// (getBanList). The address may be whatever a filter takes for one.
var banLine = regexp.MustCompile(`^(.+) \t(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)` +
	` \+ (-?\d{1,18}) = (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)$`)

func parseBan(line string, zone *time.Location, now time.Time) (banRow, error) {
	m := banLine.FindStringSubmatch(line)
	if m == nil {
		return banRow{}, fmt.Errorf("fail2ban-client says %q, which is no ban with its time",
			printable.Limit(line, 200))
	}
	length, err := strconv.ParseInt(m[3], 10, 64)
	if err != nil {
		return banRow{}, err
	}
	since, err := startOf(m[2], length, m[4], zone, now)
	return banRow{ip: m[1], length: length, since: since.Unix()}, err
}

// startOf returns when a ban began. Where clocks are set back, a local time is in one hour or in the next: the end of
// the ban tells in which. Where that is as uncertain, it is the earlier of those that are still in force, so that
// nobody is kept out for too long.
func startOf(start string, length int64, end string, zone *time.Location, now time.Time) (time.Time, error) {
	starts, err := instantsOf(start, zone)
	if err != nil {
		return time.Time{}, err
	}
	best := starts[len(starts)-1]
	if length < 0 || len(starts) == 1 {
		return best, nil
	}
	for i := len(starts) - 1; i >= 0; i-- {
		ends := starts[i].Add(time.Duration(min(length, int64(longestDuration/time.Second))) * time.Second)
		// The server's times have fractions of seconds, which are cut off.
		matches := ends.Format(time.DateTime) == end || ends.Add(time.Second).Format(time.DateTime) == end
		if matches && ends.After(now) {
			best = starts[i]
		}
	}
	return best, nil
}

// instantsOf returns the one or two instants, in their order, at which clocks of a zone show a time.
func instantsOf(text string, zone *time.Location) ([]time.Time, error) {
	utc, err := time.Parse(time.DateTime, text)
	if err != nil {
		return nil, err
	}
	const day = 24 * time.Hour // more than any offset
	_, before := utc.Add(-day).In(zone).Zone()
	_, after := utc.Add(day).In(zone).Zone()
	var out []time.Time
	for _, offset := range []int{max(before, after), min(before, after)} { // ahead of UTC is earlier
		t := utc.Add(-time.Duration(offset) * time.Second).In(zone)
		if t.Format(time.DateTime) == text && (len(out) == 0 || !out[0].Equal(t)) {
			out = append(out, t)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no clock in %s ever shows %s", zone, text)
	}
	return out, nil
}
