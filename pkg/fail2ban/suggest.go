package fail2ban

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/policy"
)

// Setting is a key of Ringwall's configuration, below policy or firewall.
type Setting struct {
	Key   string // such as policy.ban.first
	Value string // as YAML
	Why   string
}

// Suggestion is a policy that comes near what fail2ban did.
type Suggestion struct {
	From     string // the jail; "" where there is none, and then there are no settings
	Settings []Setting
}

func (s *Suggestion) set(key, value, format string, args ...any) {
	s.Settings = append(s.Settings, Setting{key, value, fmt.Sprintf(format, args...)})
}

// What fail2ban does where no file says a number (server/failmanager.py, server/actions.py).
const (
	builtinRetry = 3
	builtinTime  = 10 * time.Minute
)

// leastGuesses keeps a person who mistypes a password in, whatever the jail said.
const leastGuesses = 3

// suggest takes the numbers of the mildest jail about telephony.
func (im *Import) suggest(purge time.Duration) Suggestion {
	var voip []Jail
	for _, j := range im.Jails {
		if j.VoIP {
			if j.MaxRetry == 0 {
				j.MaxRetry = builtinRetry
			}
			if j.FindTime <= 0 {
				j.FindTime = builtinTime
			}
			if j.BanTime == 0 {
				j.BanTime = builtinTime
			}
			voip = append(voip, j)
			im.leftOf(j)
		}
	}
	if len(voip) == 0 {
		return Suggestion{}
	}
	slices.SortStableFunc(voip, func(a, b Jail) int {
		if a.MaxRetry != b.MaxRetry {
			return b.MaxRetry - a.MaxRetry
		}
		return cmp.Compare(a.FindTime, b.FindTime)
	})
	j := voip[0]
	if len(voip) > 1 {
		var others []string
		for _, v := range voip[1:] {
			others = append(others, v.Name)
		}
		im.leave("the numbers of jail "+quotes(others), "Ringwall has one policy; the mildest jail, "+quote(j.Name)+", gave the numbers")
	}
	s := Suggestion{From: j.Name}
	im.scoring(&s, j)
	im.lengths(&s, j, purge)
	addPorts(&s, voip)
	return s
}

func (im *Import) scoring(s *Suggestion, j Jail) {
	p := policy.Default().Policy
	n := max(j.MaxRetry, leastGuesses)
	if n != j.MaxRetry {
		im.leave(fmt.Sprintf("maxretry = %d of jail %s", j.MaxRetry, quote(j.Name)),
			fmt.Sprintf("people mistype passwords, so %d guesses it is", n))
	}
	threshold := p.Points.WrongPassword * (float64(n) - 0.5)
	threshold = min(threshold, 1e6)
	s.set("policy.threshold", decimal(threshold),
		"maxretry = %d. A wrong password gives %s points, so that in quick succession the %s one bans; an unknown account gives %s, "+
			"which makes %d attempts. fail2ban counts lines, and Asterisk writes one to three of them for an attempt; Ringwall counts "+
			"attempts. So this is milder than the jail was. Its own default is %s.",
		j.MaxRetry, decimal(p.Points.WrongPassword), ordinal(n), decimal(p.Points.UnknownAccount),
		int(math.Ceil(threshold/p.Points.UnknownAccount)), decimal(p.Threshold))
	half := min(max(j.FindTime, time.Second), longestPolicy)
	pace := 1 / math.Log2(threshold/(threshold-p.Points.WrongPassword))
	s.set("policy.half_life", words(half),
		"findtime = %s. Not the same thing: fail2ban forgets a failure all at once when findtime is over; Ringwall lets half of the "+
			"points go in that time, and half of the rest in the next. A burst is banned as before; a guesser who stays below maxretry "+
			"for ever is banned too, from about %s wrong passwords each %s on.", words(j.FindTime), decimal(math.Round(pace*10)/10), words(half))
}

// longestPolicy is the longest time that the configuration takes.
const longestPolicy = 3650 * 24 * time.Hour

func (im *Import) lengths(s *Suggestion, j Jail, purge time.Duration) {
	def := policy.Default().Policy.Ban
	first := min(max(j.BanTime, time.Second), longestPolicy)
	if j.BanTime == Forever {
		s.set("policy.ban.first", words(def.Max), "bantime = -1, for ever. Ringwall's bans end: addresses change hands, and a customer who is "+
			"banned by mistake would stay out. A week, and longer for those that come back.")
		s.set("policy.ban.factor", decimal(def.Factor), "Ringwall's default.")
		s.set("policy.ban.max", words(365*24*time.Hour), "A year is near enough to for ever.")
		im.leave("bantime = -1 of jail "+quote(j.Name), "there are no bans for ever: a week first, up to a year for those that come back")
		return
	}
	s.set("policy.ban.first", words(first), "bantime = %s.", words(j.BanTime))
	factor, most, memory := 1.0, first, time.Duration(0)
	why, whyMost := "Each ban as long as the first one: the jail has no bantime.increment, and there is no recidive jail. Ringwall's default is "+
		decimal(def.Factor)+".", "As first. Ringwall's default is "+words(def.Max)+"."
	if j.Increment.On {
		factor, why = im.growth(j)
		memory = purge
		most, whyMost = max(def.Max, first), "bantime.maxtime is not set, and fail2ban has no bound; Ringwall's default."
		if t := j.Increment.MaxTime; t > 0 {
			most, whyMost = max(t, first), "bantime.maxtime = "+words(t)+"."
		}
	}
	whyMemory := "dbpurgeage = " + words(purge) + ": for so long fail2ban's database remembers a ban."
	if r := im.recidive(); r != nil {
		span, retry, length := r.FindTime, max(r.MaxRetry, 2), r.BanTime
		if length == Forever {
			length = 365 * 24 * time.Hour
		}
		if length > most {
			most, whyMost = length, "bantime of jail "+quote(r.Name)+" = "+words(length)+"."
		}
		if !j.Increment.On {
			factor = math.Pow(float64(most)/float64(first), 1/float64(retry-1))
			why = fmt.Sprintf("Jail %s: after %d bans within %s, %s. Ringwall's bans grow step by step, so that the %s one is as long as that.",
				quote(r.Name), retry, words(span), words(length), ordinal(retry))
		}
		if span > memory {
			memory, whyMemory = span, "findtime of jail "+quote(r.Name)+" = "+words(span)+"."
		}
	}
	factor = min(max(math.Round(factor*100)/100, 1), 1000)
	s.set("policy.ban.factor", decimal(factor), "%s", why)
	s.set("policy.ban.max", words(min(most, longestPolicy)), "%s", whyMost)
	if memory > 0 {
		s.set("policy.ban.memory", words(min(memory, longestPolicy)), "%s Ringwall's default is %s.", whyMemory, words(def.Memory))
	}
	if most > def.ForgeableMax {
		im.leave("bans longer than "+words(def.ForgeableMax), "where the evidence came by UDP and could have been forged, a ban ends after "+
			"policy.ban.forgeable_max, "+words(def.ForgeableMax))
	}
}

// growth is how many times as long each further ban is (server/jail.py, setBanTimeExtra).
func (im *Import) growth(j Jail) (float64, string) {
	in := j.Increment
	switch {
	case len(in.Multipliers) > 1:
		n := len(in.Multipliers)
		ratio := math.Pow(in.Multipliers[n-1]/in.Multipliers[0], 1/float64(n-1))
		im.leave("bantime.multipliers of jail "+quote(j.Name), "Ringwall has one factor for each step; the one that comes to the same end was taken")
		return ratio, fmt.Sprintf("bantime.multipliers go from %s to %s in %d steps; this is the like of it in equal steps.",
			decimal(in.Multipliers[0]), decimal(in.Multipliers[n-1]), n-1)
	case strings.HasPrefix(in.Formula, "ban.Time*math.exp(float(ban.Count+1)*banFactor)/math.exp("):
		return math.Exp(in.Factor), "bantime.formula grows by e to the power of bantime.factor with each ban."
	case in.Formula != "" && in.Formula != "ban.Time*(1<<(ban.Countifban.Count<20else20))*banFactor":
		im.leave("bantime.formula of jail "+quote(j.Name), "it is a program in Python; factor 2 was taken, as without it")
		return 2, "bantime.formula is a program in Python; this is fail2ban's default, each ban twice as long."
	case in.Factor != 1:
		im.leave("bantime.factor = "+decimal(in.Factor)+" of jail "+quote(j.Name),
			"it makes fail2ban's second ban longer, and no step after it; Ringwall's factor is that of each step")
	}
	return 2, "bantime.increment: fail2ban doubles each further ban."
}

func (im *Import) recidive() *Jail {
	for i := range im.Jails {
		if j := &im.Jails[i]; strings.Contains(j.Filter, "recidive") && j.BanTime != 0 {
			return j
		}
	}
	return nil
}

// leftOf lists what a jail does and Ringwall does not.
func (im *Import) leftOf(j Jail) {
	name := "jail " + quote(j.Name)
	if j.IgnoreCmd != "" {
		im.leave("ignorecommand of "+name, "Ringwall runs no program before a ban; name the addresses in policy.allow")
	}
	if j.Increment.On && j.Increment.Random > 0 {
		im.leave("bantime.rndtime of "+name, "Ringwall's bans have exact lengths")
	}
	if j.AllPorts {
		im.leave("the ban of all ports of "+name, "firewall.scope is voip, so that a customer still reaches the web page, and you SSH; "+
			"firewall.scope: all does as fail2ban did")
	}
	var more []string
	for _, a := range j.Actions {
		if !firewallAction(a) {
			more = append(more, a)
		}
	}
	if len(more) > 0 {
		im.leave("action "+quotes(more)+" of "+name, "it does something else than ban; see what Ringwall's log and metrics can tell instead")
	}
}

func firewallAction(name string) bool {
	for _, prefix := range []string{"iptables", "nftables", "firewallcmd", "ufw", "shorewall", "ipset", "ipfw", "pf", "npf", "route", "bsd-ipfw"} {
		if name == prefix || strings.HasPrefix(name, prefix+"-") || strings.HasPrefix(name, prefix+"[") {
			return true
		}
	}
	return false
}

// addPorts adds ports that the jails name and Ringwall would not close.
func addPorts(s *Suggestion, jails []Jail) {
	def := policy.Default().Firewall.Ports
	udp, tcp := slices.Clone(def.UDP), slices.Clone(def.TCP)
	var more []string
	for _, j := range jails {
		for _, p := range j.Ports {
			switch {
			case slices.Contains(udp, p) || slices.Contains(tcp, p):
			case p == 22 || p == 25 || p == 80 || p == 443:
			default:
				udp, tcp = append(udp, p), append(tcp, p)
				more = append(more, strconv.Itoa(int(p)))
			}
		}
	}
	if len(more) > 0 {
		s.set("firewall.ports.udp", list(udp), "The jails also close %s; the others are Ringwall's defaults.", strings.Join(more, ", "))
		s.set("firewall.ports.tcp", list(tcp), "")
	}
}

func list(ports []uint16) string {
	words := make([]string, len(ports))
	for i, p := range ports {
		words[i] = strconv.Itoa(int(p))
	}
	return "[" + strings.Join(words, ", ") + "]"
}

func decimal(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func ordinal(n int) string {
	end := "th"
	if n%100 < 11 || n%100 > 13 {
		switch n % 10 {
		case 1:
			end = "st"
		case 2:
			end = "nd"
		case 3:
			end = "rd"
		}
	}
	return strconv.Itoa(n) + end
}
