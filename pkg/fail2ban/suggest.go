package fail2ban

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
)

// Setting is a key of Ringwall's configuration, below policy or firewall.
type Setting struct {
	Key   string // such as policy.ban.first
	Value string // as YAML
	Why   string
}

// Suggestion is a policy that comes near what fail2ban did.
type Suggestion struct {
	// the jails whose numbers they are, with commas; "" where there is none, and then there are no settings
	From     string
	Settings []Setting
}

func (s *Suggestion) addSetting(key, value, format string, args ...any) {
	s.Settings = append(s.Settings, Setting{key, value, fmt.Sprintf(format, args...)})
}

// What fail2ban does where no file says a number (server/failmanager.py, server/actions.py).
const (
	builtinMaxRetry = 3
	builtinTime     = 10 * time.Minute
)

// The fewest failures that ban, whatever the jail said: people mistype passwords, and names too; and in the morning the
// first phones of an office may be three with old passwords.
const (
	leastGuesses = 4
	leastNames   = 2
)

// mildestNames is how many requests for unknown accounts may come before a ban at most, as in fail2ban's own jail
// asterisk.
const mildestNames = 10

// longestHalfLife is how long a suggested half-life is at most. The failures of a whole office add up in it, so trust's
// tolerance grows with it; beyond an hour an attacker in a trusted place would have too many attempts.
const longestHalfLife = time.Hour

// suggestPolicy takes the numbers of the strictest jail of each kind, and none that is milder than Ringwall's default:
// whoever comes from fail2ban is not less safe than who begins with Ringwall. The exception is a jail for unknown
// accounts alone.
func (im *Import) suggestPolicy(purge time.Duration) Suggestion {
	var voip []Jail
	for _, j := range im.Jails {
		if j.VoIP {
			if j.MaxRetry == 0 {
				j.MaxRetry = builtinMaxRetry
			}
			if j.FindTime <= 0 {
				j.FindTime = builtinTime
			}
			if j.BanTime == 0 {
				j.BanTime = builtinTime
			}
			voip = append(voip, j)
			im.reportUnsupported(j)
		}
	}
	if len(voip) == 0 {
		return Suggestion{}
	}
	s := Suggestion{}
	used := im.suggestPoints(&s, voip)
	// -1 or 0: as few jails as possible give the numbers
	uses := func(j Jail) int { return min(slices.Index(used, j.Name), 0) }
	long := slices.MaxFunc(voip, func(a, b Jail) int {
		return cmp.Or(cmp.Compare(banLength(a), banLength(b)), cmp.Compare(longestGrownBan(a), longestGrownBan(b)),
			uses(a)-uses(b))
	})
	im.suggestBanLengths(&s, long, purge)
	im.suggestPorts(&s, voip)
	used = append(used, long.Name)
	var from, others []string
	for _, j := range voip {
		if slices.Contains(used, j.Name) {
			from = append(from, j.Name)
		} else {
			others = append(others, j.Name)
		}
	}
	s.From = strings.Join(from, ", ")
	if len(others) > 0 {
		im.addNotImported("the numbers of jail "+quoteList(others),
			"Ringwall has one policy, and the strictest jail of each kind counts: "+quoteList(from))
	}
	return s
}

// longestGrownBan is how long a jail's bans become, where they do; without a bound they become the longest.
func longestGrownBan(j Jail) time.Duration {
	if j.Increment.On && j.Increment.MaxTime <= 0 {
		return longestDuration
	}
	return j.Increment.MaxTime
}

func banLength(j Jail) time.Duration {
	if j.BanTime == Forever {
		return longestDuration
	}
	return j.BanTime
}

// failureKind is one of the things that jails count.
type failureKind struct {
	count  FailureKinds
	key    string  // of its points
	what   string  // a single one, with its article
	many   string  // several
	slow   string  // what somebody does who fails slowly, with %s for the time between two failures
	points float64 // by default
	usual  int     // how many ban by default
	least  int     // how few may
}

func failureKinds() []failureKind {
	p := config.Default().Policy
	number := func(points float64) int { return int(math.Ceil(p.Threshold / points)) }
	return []failureKind{
		{Accounts, "unknown_account", "an unknown account", "unknown accounts", "tries an unknown account each %s",
			p.Points.UnknownAccount, number(p.Points.UnknownAccount), leastNames},
		{Passwords, "wrong_password", "a wrong password", "wrong passwords",
			"tries a password each %s, on more than two accounts,",
			p.Points.WrongPassword, number(p.Points.WrongPassword), leastGuesses},
		{Manager, "manager", "a failed login to AMI", "failed logins to AMI", "fails to log in to AMI each %s",
			p.Points.Manager, number(p.Points.Manager), leastNames},
	}
}

// suggestPoints sets what each kind of failure is worth, and how long it counts. It returns whose numbers they are.
func (im *Import) suggestPoints(s *Suggestion, voip []Jail) (used []string) {
	p := config.Default().Policy
	s.addSetting("policy.threshold", humanize.Number(p.Threshold),
		"Ringwall's default. The points below are made for it: fail2ban counts "+
			"lines, of which Asterisk writes one to three for an attempt; Ringwall counts attempts.")
	half := halfLife{length: p.HalfLife, trustFactor: 1}
	burst := p.Misconfigured.Burst
	var strictest Jail // that counts wrong passwords
	for _, k := range failureKinds() {
		var mine []Jail
		for _, j := range voip {
			if j.Counts&k.count != 0 {
				mine = append(mine, j)
			}
		}
		if len(mine) == 0 {
			continue
		}
		j := slices.MinFunc(mine, func(a, b Jail) int { return a.MaxRetry - b.MaxRetry })
		used = append(used, j.Name)
		n := max(j.MaxRetry, k.least)
		if n != j.MaxRetry && (k.count != Manager || j.Counts == Manager) {
			im.addNotImported(fmt.Sprintf("maxretry = %d of jail %s", j.MaxRetry, printable.Quote(j.Name)),
				fmt.Sprintf("people mistype, and phones have old passwords, so %d %s it is", n, k.many))
		}
		points, why := k.points, ""
		switch {
		case n < k.usual:
			points = pointsFor(n)
			why = fmt.Sprintf("so that the %s in quick succession bans", humanize.Ordinal(n))
			if k.count == Passwords {
				burst, strictest = n-1, j
			} else { // a phone of a deleted account fails for ever, and so does a program with an old secret
				half.trustFactor = max(half.trustFactor, points/k.points)
			}
		case n > k.usual && k.count == Accounts && j.Counts == Accounts:
			// Whoever has a jail for scans alone has said how many he means, such as for a provider without identify.
			if n > mildestNames {
				im.addNotImported(fmt.Sprintf("maxretry = %d of jail %s for %s", j.MaxRetry, printable.Quote(j.Name),
					k.many),
					fmt.Sprintf("scanners ask for hundreds, so %d it is; policy.points.%s: %s would be as mild",
						mildestNames, k.key,
						humanize.Number(pointsFor(n))))
			}
			n = min(n, mildestNames)
			points = pointsFor(n)
			why = fmt.Sprintf("so the %s in quick succession bans, and not the %s as by Ringwall's default",
				humanize.Ordinal(n),
				humanize.Ordinal(k.usual))
		case n == k.usual:
			why = fmt.Sprintf("as Ringwall's default: the %s in quick succession bans", humanize.Ordinal(n))
		default:
			why = fmt.Sprintf("and Ringwall's default is stricter: the %s in quick succession bans. It stays, so "+
				"that nobody is less safe than before; %s would be as mild as the jail", humanize.Ordinal(k.usual),
				humanize.Number(pointsFor(n)))
			im.reportMilder(j, k)
		}
		if k.count != Manager || n < k.usual {
			s.addSetting("policy.points."+k.key, humanize.Number(points),
				"What %s is worth. Jail %s has maxretry = %d, %s.",
				k.what, printable.Quote(j.Name), j.MaxRetry, why)
		}
		for _, j := range mine {
			if half.lengthen(j, k, points, p.Threshold) {
				used = append(used, j.Name)
			}
		}
	}
	half.addSettings(im, s)
	if burst < p.Misconfigured.Burst {
		s.addSetting("policy.misconfigured.burst", strconv.Itoa(burst),
			"maxretry = %d of jail %s: so many wrong passwords may come at once "+
				"before they count, as a phone or a person sends them. Ringwall's default is %d.",
			strictest.MaxRetry, printable.Quote(strictest.Name), p.Misconfigured.Burst)
	}
	return used
}

// pointsFor is what one of n failures is worth, so that the last of them bans when they come within a good minute.
func pointsFor(n int) float64 {
	return math.Ceil(config.Default().Policy.Threshold/(float64(n)-0.2)*100) / 100
}

// reportMilder lists a number that is not taken because it is much milder than the default.
func (im *Import) reportMilder(j Jail, k failureKind) {
	if j.MaxRetry > 2*k.usual && (k.count != Manager || j.Counts == Manager) {
		im.addNotImported(fmt.Sprintf("maxretry = %d of jail %s for %s", j.MaxRetry, printable.Quote(j.Name), k.many),
			fmt.Sprintf(
				"it is milder than Ringwall's default, by which the %s in quick succession bans a stranger, so the "+
					"default stays; policy.points.%s: %s would be as mild", humanize.Ordinal(k.usual), k.key,
				humanize.Number(pointsFor(j.MaxRetry))))
	}
}

// halfLife is how long failures count, and for which jail.
type halfLife struct {
	length      time.Duration
	want        time.Duration // what all of findtime would ask for
	jail        Jail          // which asked for most; without a name where the default is long enough
	kind        failureKind   // of failure for which it did
	points      float64       // of each of them
	trustFactor float64       // points of a failure that trust must tolerate, as a multiple of Ringwall's default
}

// lengthen makes the half-life so long that somebody is banned who fails steadily, and just often enough for the jail:
// the sum of points p a gap apart comes up to p/(1-2^(-gap/half)).
func (h *halfLife) lengthen(j Jail, k failureKind, points, threshold float64) bool {
	gap := j.FindTime / time.Duration(max(j.MaxRetry, k.least)-1)
	want := min(max(time.Duration(float64(gap)/math.Log2(threshold/(threshold-points))), 0), longestDuration)
	if want <= max(h.length, h.want) {
		return false
	}
	h.length, h.want = max(h.length, min(want.Round(time.Minute)+time.Minute, longestHalfLife)), want
	h.jail, h.kind, h.points = j, k, points
	return true
}

// slowestBanned says who is just banned, as the beginning of a sentence.
func (h *halfLife) slowestBanned(threshold float64) string {
	gap := time.Duration(float64(h.length) * math.Log2(threshold/(threshold-h.points)))
	return "Who " + fmt.Sprintf(h.kind.slow, humanize.DurationToSecond(gap.Truncate(time.Minute)))
}

func (h *halfLife) addSettings(im *Import, s *Suggestion) {
	p := config.Default().Policy
	const differs = "fail2ban forgets a failure all at once when findtime is over; Ringwall forgets half of the " +
		"points in this time, and half of the rest in the next."
	name := printable.Quote(h.jail.Name)
	if h.jail.Name == "" {
		s.addSetting("policy.half_life", humanize.DurationToSecond(h.length),
			"Ringwall's default. It remembers at least as long as the findtime of the jails asks for: "+differs)
	} else {
		s.addSetting("policy.half_life", humanize.DurationToSecond(h.length),
			"findtime = %s of jail %s. Not the same thing: %s %s all day is banned.",
			humanize.DurationToSecond(h.jail.FindTime), name, differs, h.slowestBanned(p.Threshold))
	}
	if more := h.trustFactor * h.length.Minutes() / p.HalfLife.Minutes(); more > 1 {
		s.addSetting("policy.trust.tolerance", humanize.Number(math.Ceil(p.Trust.Tolerance*more*10)/10),
			"Ringwall's default is %s. It grows with the half-life and the points, in which the failures of a "+
				"trusted office add up, so that one wrong phone still does not ban the others.",
			humanize.Number(p.Trust.Tolerance))
	}
	if h.want > h.length {
		im.addNotImported("findtime = "+humanize.DurationToSecond(h.jail.FindTime)+" of jail "+name, fmt.Sprintf(
			"policy.half_life is %s: a longer one would add up what all the phones of a trusted office do in a day, "+
				"and ban it. %s is banned, who does so less often no longer", humanize.DurationToSecond(h.length),
			h.slowestBanned(p.Threshold)))
	}
}

// longestPolicy is the longest time that the configuration takes.
const longestPolicy = 3650 * 24 * time.Hour

func (im *Import) suggestBanLengths(s *Suggestion, j Jail, purge time.Duration) {
	def := config.Default().Policy.Ban
	first := min(max(j.BanTime, time.Second), longestPolicy)
	if j.BanTime == Forever {
		s.addSetting("policy.ban.first", humanize.DurationToSecond(def.Max),
			"bantime = -1, for ever. Ringwall's bans end: addresses change hands, and a customer who is "+
				"banned by mistake would stay out. A week, and longer for those that come back.")
		s.addSetting("policy.ban.factor", humanize.Number(def.Factor), "Ringwall's default.")
		s.addSetting("policy.ban.max", humanize.DurationToSecond(365*24*time.Hour),
			"A year is near enough to for ever.")
		im.addNotImported("bantime = -1 of jail "+printable.Quote(j.Name),
			"there are no bans for ever: a week first, up to a year for those that come back")
		return
	}
	s.addSetting("policy.ban.first", humanize.DurationToSecond(first), "bantime = %s.",
		humanize.DurationToSecond(j.BanTime))
	factor, most, memory := 1.0, first, time.Duration(0)
	why, whyMost := "Each ban as long as the first one: the jail has no bantime.increment, and there is no recidive "+
		"jail. Ringwall's default is "+
		humanize.Number(def.Factor)+".", "As first. Ringwall's default is "+humanize.DurationToSecond(def.Max)+"."
	if j.Increment.On {
		factor, why = im.banFactor(j)
		memory = purge
		most, whyMost = max(def.Max, first), "bantime.maxtime is not set, and fail2ban has no bound; Ringwall's "+
			"default."
		if t := j.Increment.MaxTime; t > 0 {
			most, whyMost = max(t, first), "bantime.maxtime = "+humanize.DurationToSecond(t)+"."
		}
	}
	whyMemory := "dbpurgeage = " + humanize.DurationToSecond(purge) +
		": for so long fail2ban's database remembers a ban."
	if r := im.recidiveJail(); r != nil {
		span, retry, length := r.FindTime, max(r.MaxRetry, 2), r.BanTime
		if length == Forever {
			length = 365 * 24 * time.Hour
		}
		if length > most {
			most, whyMost = length, fmt.Sprintf("bantime of jail %s = %s.", printable.Quote(r.Name),
				humanize.DurationToSecond(length))
		}
		if !j.Increment.On {
			factor = math.Pow(float64(most)/float64(first), 1/float64(retry-1))
			why = fmt.Sprintf("Jail %s: after %d bans within %s, %s. Ringwall's bans grow step by step, so that the "+
				"%s one is as long as that.",
				printable.Quote(r.Name), retry, humanize.DurationToSecond(span), humanize.DurationToSecond(length),
				humanize.Ordinal(retry))
		}
		if span > memory {
			memory, whyMemory = span, fmt.Sprintf("findtime of jail %s = %s.", printable.Quote(r.Name),
				humanize.DurationToSecond(span))
		}
	}
	factor = min(max(math.Round(factor*100)/100, 1), 1000)
	s.addSetting("policy.ban.factor", humanize.Number(factor), "%s", why)
	s.addSetting("policy.ban.max", humanize.DurationToSecond(min(most, longestPolicy)), "%s", whyMost)
	if memory > 0 {
		s.addSetting("policy.ban.memory", humanize.DurationToSecond(min(memory, longestPolicy)),
			"%s Ringwall's default is %s.",
			whyMemory, humanize.DurationToSecond(def.Memory))
	}
	if most > def.ForgeableMax {
		im.addNotImported("bans longer than "+humanize.DurationToSecond(def.ForgeableMax),
			"where the evidence came by UDP and could have been forged, a ban ends after "+
				"policy.ban.forgeable_max, "+humanize.DurationToSecond(def.ForgeableMax))
	}
}

// banFactor is how many times as long each further ban is (server/jail.py, setBanTimeExtra).
func (im *Import) banFactor(j Jail) (float64, string) {
	in := j.Increment
	switch {
	case len(in.Multipliers) > 1:
		n := len(in.Multipliers)
		ratio := math.Pow(in.Multipliers[n-1]/in.Multipliers[0], 1/float64(n-1))
		im.addNotImported("bantime.multipliers of jail "+printable.Quote(j.Name),
			"Ringwall has one factor for each step; the one that comes to the same end was taken")
		return ratio, fmt.Sprintf("bantime.multipliers go from %s to %s in %d steps; this is the like of it in equal "+
			"steps.",
			humanize.Number(in.Multipliers[0]), humanize.Number(in.Multipliers[n-1]), n-1)
	case strings.HasPrefix(in.Formula, "ban.Time*math.exp(float(ban.Count+1)*banFactor)/math.exp("):
		return math.Exp(in.Factor), "bantime.formula grows by e to the power of bantime.factor with each ban."
	case in.Formula != "" && in.Formula != "ban.Time*(1<<(ban.Countifban.Count<20else20))*banFactor":
		im.addNotImported("bantime.formula of jail "+printable.Quote(j.Name),
			"it is a program in Python; factor 2 was taken, as without it")
		return 2, "bantime.formula is a program in Python; this is fail2ban's default, each ban twice as long."
	case in.Factor != 1:
		im.addNotImported("bantime.factor = "+humanize.Number(in.Factor)+" of jail "+printable.Quote(j.Name),
			"it makes fail2ban's second ban longer, and no step after it; Ringwall's factor is that of each step")
	}
	return 2, "bantime.increment: fail2ban doubles each further ban."
}

func (im *Import) recidiveJail() *Jail {
	for i := range im.Jails {
		if j := &im.Jails[i]; strings.Contains(j.Filter, "recidive") && j.BanTime != 0 {
			return j
		}
	}
	return nil
}

// reportUnsupported lists what a jail does and Ringwall does not.
func (im *Import) reportUnsupported(j Jail) {
	name := "jail " + printable.Quote(j.Name)
	if j.IgnoreCmd != "" {
		im.addNotImported("ignorecommand of "+name,
			"Ringwall runs no program before a ban; name the addresses in policy.allow")
	}
	if j.Increment.On && j.Increment.Random > 0 {
		im.addNotImported("bantime.rndtime of "+name, "Ringwall's bans have exact lengths")
	}
	if j.AllPorts != "" {
		im.addNotImported(j.AllPorts+" of "+name,
			"firewall.scope is voip, so that a customer still reaches the web page, and you SSH; "+
				"firewall.scope: all does as fail2ban did")
	}
	var more []string
	for _, a := range j.Actions {
		if !isFirewallAction(a) && !isMailAction(a) {
			more = append(more, a)
		}
	}
	if len(more) > 0 {
		im.addNotImported("action "+quoteList(more)+" of "+name,
			"it does something else than ban; see what Ringwall's log and metrics can tell instead")
	}
}

func isFirewallAction(name string) bool {
	for _, prefix := range []string{"iptables", "nftables", "firewallcmd", "ufw", "shorewall", "ipset", "ipfw", "pf",
		"npf", "route", "bsd-ipfw"} {
		if name == prefix || strings.HasPrefix(name, prefix+"-") || strings.HasPrefix(name, prefix+"[") {
			return true
		}
	}
	return false
}

// notVoIP are ports that a ban leaves open unless firewall.scope is all: SSH, mail and the web.
var notVoIP = []uint16{22, 25, 80, 443, 465, 587, 8080, 8443}

// suggestPorts adds ports that the jails and their actions name and Ringwall would not close.
func (im *Import) suggestPorts(s *Suggestion, jails []Jail) {
	const most = 1000
	def := config.Default().Firewall.Ports
	udp, tcp := slices.Clone(def.UDP), slices.Clone(def.TCP)
	var more []uint16
	for _, j := range jails {
		others := slices.Clone(j.Ports.Wide)
		for _, p := range j.Ports.List {
			switch {
			case slices.Contains(notVoIP, p), len(more) >= most:
				others = append(others, strconv.Itoa(int(p)))
			case !slices.Contains(udp, p) && !slices.Contains(tcp, p) && !slices.Contains(more, p):
				more = append(more, p)
			}
		}
		if len(others) > 0 {
			im.addNotImported("port "+quoteList(others)+" of jail "+printable.Quote(j.Name),
				"a ban closes the ports of telephony, each of them in "+
					"firewall.ports; firewall.scope: all closes all there are")
		}
	}
	if len(more) > 0 {
		slices.Sort(more)
		s.addSetting("firewall.ports.udp", portList(append(udp, more...)),
			"The jails also close %s; the others are Ringwall's defaults.", strings.Trim(portList(more), "[]"))
		s.addSetting("firewall.ports.tcp", portList(append(tcp, more...)), "")
	}
}

func portList(ports []uint16) string {
	words := make([]string, len(ports))
	for i, p := range ports {
		words[i] = strconv.Itoa(int(p))
	}
	return "[" + strings.Join(words, ", ") + "]"
}
