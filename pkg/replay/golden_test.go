package replay_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/replay"
)

var update = flag.Bool("update", false, "write testdata/decisions.sha256 anew: say in the commit which decisions "+
	"changed, and why")

const goldenSums = "testdata/decisions.sha256"

// TestDecisionsStayTheSame plays every recording of the tests and half a million synthetic events, and compares a
// checksum of all that a replay says of each with the one that was written down: a change that is meant to change no
// decision changes none. Where one is meant to, `ringwall replay --json` of the two programs tells which.
func TestDecisionsStayTheSame(t *testing.T) {
	var sums bytes.Buffer
	for _, dir := range []string{"../asterisk/ami/testdata", "../asterisk/event/testdata/captures",
		"testdata/asfound"} {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.Type().IsRegular() && filepath.Ext(path) != ".json" {
				fmt.Fprintf(&sums, "%s  %s\n", replaySum(t, path, nil), filepath.ToSlash(path))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for seed := range uint64(2) {
		in, out := io.Pipe()
		go func() { out.CloseWithError(writeSynthetic(out, seed, 250_000)) }()
		fmt.Fprintf(&sums, "%s  250,000 synthetic events, seed %d\n", replaySum(t, "-", in), seed)
	}
	if *update {
		if err := os.WriteFile(goldenSums, sums.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	golden, err := os.ReadFile(goldenSums)
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]bool)
	for line := range strings.Lines(string(golden)) {
		want[line] = true
	}
	for line := range strings.Lines(sums.String()) {
		if !want[line] {
			t.Errorf("other decisions, or a recording that has no checksum yet: %s", line)
		}
		delete(want, line)
	}
	for line := range want {
		t.Errorf("not played: %s", line)
	}
}

// replaySum is the SHA-256 of the decisions and the summary of a replay, as JSON.
func replaySum(t *testing.T, name string, stdin io.Reader) string {
	t.Helper()
	sum := sha256.New()
	lines := json.NewEncoder(sum)
	config := config.Default()
	summary, err := replay.Run(t.Context(), []string{name}, replay.Options{
		Policy: config.Policy, Firewall: config.Firewall, PBX: "pbx", Stdin: stdin,
		Empty:  time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		Decide: func(d ban.Decision) error { return lines.Encode(d) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if stdin != nil && summary.Decoded < 240_000 { // RequestBadFormat is not judged
		t.Errorf("only %d of 250,000 synthetic events were understood", summary.Decoded)
	}
	if err := lines.Encode(summary); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// writeSynthetic writes what an Asterisk with two hundred phones sees in a bad day: logins, an office with an old
// password, scanners that are loud, slow, forged or many in one network, guessers of one account, over every
// transport.
func writeSynthetic(w io.Writer, seed uint64, events int) error {
	random := rand.New(rand.NewPCG(seed, 5060))
	out := bufio.NewWriter(w)
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	phone := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, byte(n / 8), 10}) } // eight phones an office
	scanner := func() netip.Addr {
		switch n := random.IntN(3000); {
		case n < 100: // a network that fills up
			return netip.AddrFrom4([4]byte{203, 0, 113, byte(n)})
		case n < 400:
			var a [16]byte
			copy(a[:], []byte{0x20, 0x01, 0x0d, 0xb8, 0, byte(n % 7), 0, byte(n)})
			a[15] = byte(random.IntN(4))
			return netip.AddrFrom16(a)
		default:
			return netip.AddrFrom4([4]byte{198, byte(18 + n%2), byte(n >> 8), byte(n)})
		}
	}
	transports := []string{"UDP", "UDP", "UDP", "TCP", "TLS"}
	for range events {
		at = at.Add(time.Duration(random.ExpFloat64() * float64(300*time.Millisecond))).Truncate(time.Millisecond)
		n, transport := random.IntN(200), transports[random.IntN(len(transports))]
		account, from, call := fmt.Sprint(200+n), phone(n), fmt.Sprintf("%x@pbx", random.Uint32())
		kind, extra := "SuccessfulAuth", "UsingPassword: 1\r\n"
		switch dice := random.IntN(100); {
		case dice < 15: // a login
		case dice < 25:
			kind, extra = "ChallengeSent", "Challenge: 1700000000/abc\r\n"
			if dice < 17 {
				account, from = "<unknown>", scanner()
			}
		case dice < 28: // the office with an old password
			account, from, call, transport = "201", phone(n%3*8), "old@phone", "UDP"
			kind, extra = "ChallengeResponseFailed", "Challenge: c\r\nResponse: r\r\nExpectedResponse: \r\n"
		case dice < 45:
			from = scanner()
			kind, extra = "ChallengeResponseFailed", "Challenge: c\r\nResponse: r\r\nExpectedResponse: \r\n"
			if dice < 32 { // one account, guessed from everywhere
				account = "250"
			}
		case dice < 47: // forged in a customer's name
			account, transport, kind, extra = "admin", "UDP", "InvalidAccountID", ""
		case dice < 48:
			kind, extra, from = "SuccessfulAuth", "UsingPassword: 1\r\n", scanner()
		case dice < 50:
			kind, extra, from = "FailedACL", "ACLName: deny\r\n", scanner()
		case dice < 52:
			kind, extra = "RequestBadFormat", "RequestType: INVITE\r\n"
		default:
			account, from, kind, extra = fmt.Sprint(random.IntN(100_000)), scanner(), "InvalidAccountID", ""
			if dice < 60 { // one that retransmits
				call = "same@" + from.String()
			}
		}
		family := "IPV4"
		if from.Is6() {
			family = "IPV6"
		}
		local := netip.MustParseAddr("192.0.2.1")
		if from.Is6() {
			local = netip.MustParseAddr("2001:db8:ffff::1")
		}
		_, err := fmt.Fprintf(out, "Event: %s\r\nPrivilege: security,all\r\nEventTV: %s\r\nSeverity: "+
			"Error\r\nService: PJSIP\r\n"+
			"EventVersion: 1\r\nAccountID: %s\r\nSessionID: %s\r\nLocalAddress: %s/%s/%s/5060\r\nRemoteAddress: "+
			"%s/%s/%s/%d\r\n%s\r\n",
			kind, at.Format("2006-01-02T15:04:05.000-0700"), account, call, family, transport, local, family, transport,
			from,
			1024+random.IntN(60_000), extra)
		if err != nil {
			return err
		}
	}
	return out.Flush()
}
