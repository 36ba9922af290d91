package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/deploy/trial"
)

// load is how much the tests of this file send. The full length is for a machine that has nothing else to do:
//
//	RINGWALL_LOAD=full go -C deploy test -v -timeout 30m -run Load ./e2e
type load struct {
	length        time.Duration
	rounds        int
	flood, phones int // packets a second
}

func wantedLoad() load {
	if os.Getenv("RINGWALL_LOAD") == "full" {
		return load{10 * time.Second, 3, 20_000, 2_000}
	}
	return load{time.Second, 1, 2_000, 200}
}

// mostResident is what the daemon may hold in a flood, in MB: what it remembers is bounded.
const mostResident = 400

// Beside a flood from ever new sources, Asterisk answers a trusted phone as well as it does without the tap; what the tap
// loses is counted, and the daemon's memory is bounded.
func TestLoadOfAFlood(t *testing.T) {
	want := wantedLoad()
	for _, kind := range []struct {
		name   string
		change *strings.Replacer
	}{
		{"requests", strings.NewReplacer()},
		{"refused requests", strings.NewReplacer(";tag=", ";tag=\xff")},
	} {
		eachTap(t, want, kind.name, func(r *rig, tap string) string {
			conn := r.trustedPhones(1)[0]
			defer conn.Close()
			sent := make(chan int, 1)
			go func() { sent <- (&forgedFlood{r.Lab, kind.change}).send(want) }()
			asked, took := askSteadily(r, conn, want.length)
			flooded := <-sent
			if flooded == 0 || len(took) == 0 {
				r.t.Errorf("%d packets were sent, of %d requests %d answered", flooded, asked, len(took))
			}
			var heard, lost uint64
			for _, s := range r.daemonStatus().Sensors {
				if s.Name == "tap" {
					heard, lost = s.Heard, s.Lost
				}
			}
			if tap != "off" && heard+lost < uint64(flooded/2) {
				r.t.Errorf("of %d packets the tap heard %d and knows of %d that it lost", flooded, heard, lost)
			}
			resident := r.resident()
			if resident > mostResident {
				r.t.Errorf("%d MB are resident, allowed are %d", resident, mostResident)
			}
			answered := float64(len(took)) / float64(asked)
			return fmt.Sprintf("%.0f packets/s; of %d requests of a phone %.1f%% answered, median %v, p99 %v; the tap heard "+
				"%d and lost %d; %d MB resident", float64(flooded)/want.length.Seconds(), asked, 100*answered,
				quantile(took, .5), quantile(took, .99), heard, lost, resident)
		})
	}
}

// askSteadily sends a trusted phone's OPTIONS and REGISTER in turn, whether they are answered or not, and returns how long
// the answers took.
func askSteadily(r *rig, conn net.Conn, length time.Duration) (asked int, took []time.Duration) {
	var (
		mu     sync.Mutex
		sentAt = map[string]time.Time{} // by branch
	)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 4096); ; {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			_, branch, _ := strings.Cut(string(b[:n]), ";branch=")
			branch = branch[:max(0, strings.IndexAny(branch, ";\r"))]
			mu.Lock()
			if at, ok := sentAt[branch]; ok {
				took = append(took, time.Since(at))
				delete(sentAt, branch)
			}
			mu.Unlock()
		}
	}()
	const perSecond = 40
	atRate(perSecond, length, func() {
		request := lab.Request{Method: "OPTIONS", User: "6001", Branch: fmt.Sprint("z9hG4bK-steady-", asked)}
		if asked++; asked%2 == 0 {
			request.Method = "REGISTER" // is challenged, which is an answer
		}
		b := request.Bytes("udp", netip.MustParseAddrPort(conn.LocalAddr().String()), r.SIPAddress(false))
		mu.Lock()
		sentAt[request.Branch] = time.Now()
		mu.Unlock()
		_, _ = conn.Write(b)
	})
	_ = conn.SetReadDeadline(time.Now().Add(time.Second))
	<-done
	slices.Sort(took)
	return asked, took
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1))].Round(10 * time.Microsecond)
}

// What trusted phones send costs the daemon little with the tap.
func TestLoadOfTrustedPhones(t *testing.T) {
	want := wantedLoad()
	eachTap(t, want, "phones", func(r *rig, _ string) string {
		phones := r.trustedPhones(40)
		var answers atomic.Int64
		var readers sync.WaitGroup
		for _, p := range phones {
			readers.Go(func() {
				for b := make([]byte, 4096); ; answers.Add(1) {
					if _, err := p.Read(b); err != nil {
						return
					}
				}
			})
		}
		r.waitUntil("the daemon has judged that", func() bool { return r.daemonStatus().Healthy() })
		before, begin, n := r.processorTime(), time.Now(), 0
		atRate(want.phones, want.length, func() {
			p := phones[n%len(phones)]
			m := lab.Request{Method: "OPTIONS", User: "6001", CSeq: n + 1}
			_, _ = p.Write(m.Bytes("udp", netip.MustParseAddrPort(p.LocalAddr().String()), r.SIPAddress(false)))
			n++
		})
		share := 100 * (r.processorTime() - before).Seconds() / time.Since(begin).Seconds()
		for _, p := range phones {
			_ = p.SetReadDeadline(time.Now().Add(time.Second))
		}
		readers.Wait()
		for _, p := range phones {
			_ = p.Close()
		}
		if answers.Load() == 0 {
			r.t.Error("nothing was answered")
		}
		return fmt.Sprintf("%d requests of phones, %d answered: the daemon takes %.2f%% of a core", n, answers.Load(), share)
	})
}

// eachTap measures in turn without the tap and with it, each beside an Asterisk that has nothing left to do of before.
func eachTap(t *testing.T, want load, name string, measure func(r *rig, tap string) string) {
	for range want.rounds {
		for _, tap := range []string{"off", "auto"} {
			t.Run(name+" beside tap "+tap, func(t *testing.T) {
				l := lab.Start(t, lab.Options{Version: 22, Edit: addAccounts})
				r := newRigOn(t, l, lab.Ringwall, "sensors: {tap: "+tap+"}\n")
				if tap != "off" {
					r.untilSensing("tap")
				}
				t.Logf("figure: %s", measure(r, tap))
			})
		}
	}
}

// trustedPhones are logged in, from four addresses, and send from the port that they logged in from.
func (r *rig) trustedPhones(n int) (conns []net.Conn) {
	for i := range n {
		addr := ip4(245+i%4, 1)
		r.AddAddr(r.t, lab.Attacker, addr)
		port := uint16(20_000 + i)
		a := r.Agent(r.t, lab.Attacker, lab.AgentOptions{Local: addr, Port: port, Timeout: trial.Patience, Retransmit: true})
		account := fmt.Sprint(firstAccount + 300 + i)
		if code, err := a.Register(account, lab.Password(account)); err != nil || code != 200 {
			r.t.Fatal(code, err)
		}
		a.Close()
		err := r.Do(lab.Attacker, func() error {
			conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, port)),
				net.UDPAddrFromAddrPort(r.SIPAddress(false)))
			if err == nil {
				conns = append(conns, conn)
			}
			return err
		})
		if err != nil {
			r.t.Fatal(err)
		}
	}
	return conns
}

// atRate calls so often a second, as near as a busy machine lets it.
func atRate(perSecond int, length time.Duration, do func()) (calls int) {
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		passed := time.Since(begin)
		if passed >= length {
			return calls
		}
		for due := int(passed.Seconds() * float64(perSecond)); calls < due; calls++ {
			do()
		}
	}
}

// forgedFlood are requests for accounts that do not exist, each from another address of the whole internet.
type forgedFlood struct {
	lab    *lab.Lab
	change *strings.Replacer
}

// send returns how many packets the kernel took.
func (f *forgedFlood) send(want load) (sent int) {
	to := f.lab.SIPAddress(false)
	fd := -1
	if f.lab.Do(lab.Attacker, func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	}) != nil {
		return 0
	}
	defer func() { _ = unix.Close(fd) }()
	destination := &unix.SockaddrInet4{Addr: to.Addr().As4()}
	const ip, udp = 20, 8
	random := rand.New(rand.NewPCG(1, 2))
	packet := make([]byte, ip+udp, 1500)
	atRate(want.flood, want.length, func() {
		source := netip.AddrFrom4([4]byte{byte(20 + random.IntN(70)), byte(random.IntN(256)), byte(random.IntN(256)),
			byte(1 + random.IntN(254))})
		user := strconv.Itoa(random.IntN(1_000_000) + 1_000_000)
		m := lab.Request{User: user, CallID: user + strconv.Itoa(sent)}
		text := f.change.Replace(string(m.Bytes("udp", netip.AddrPortFrom(source, 5060), to)))
		packet = append(packet[:ip+udp], text...)
		packet[0], packet[8], packet[9] = 0x45, 64, unix.IPPROTO_UDP // the kernel writes length and checksum (raw(7))
		copy(packet[12:], source.AsSlice())
		copy(packet[16:], to.Addr().AsSlice())
		header := packet[ip:ip]
		for _, field := range []uint16{5060, to.Port(), uint16(len(packet) - ip), 0} { // no checksum (RFC 768)
			header = append(header, byte(field>>8), byte(field))
		}
		if unix.Sendto(fd, packet, 0, destination) == nil {
			sent++
		}
	})
	return sent
}

// resident is what the daemon holds in memory, in MB.
func (r *rig) resident() (megabytes int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.daemon.Cmd.Process.Pid))
	if err != nil {
		r.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	if _, err := fmt.Sscan(rest, &megabytes); err != nil {
		r.t.Fatalf("%v: %s", err, b)
	}
	return megabytes / 1024
}

// processorTime is what the daemon took until now (utime and stime of proc(5), in ticks of 10 ms).
func (r *rig) processorTime() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.daemon.Cmd.Process.Pid))
	if err != nil {
		r.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	ticks := 0
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			r.t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
