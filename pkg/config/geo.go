package config

import (
	"cmp"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Geo is where addresses are looked up, and what that means for points.
type Geo struct {
	Files    []string `yaml:"files"` // in MaxMind's format; of what several know, the first one counts
	Multiply Multiply `yaml:"multiply"`
}

// Multiply is what points are multiplied by, by the place of their source: [MinFactor] to [MaxFactor] each.
type Multiply struct {
	Countries map[string]float64 `yaml:"countries"` // by ISO 3166-1 alpha-2 code, in capital letters
	ASNs      map[ASN]float64    `yaml:"asns"`
}

// ASN is the number of an autonomous system (RFC 6793).
type ASN uint32

func (a ASN) String() string { return "AS" + strconv.FormatUint(uint64(a), 10) }

// The bounds of a multiplier, and of the product of two. Zero would make every attacker of a place immune.
const (
	MinFactor = 0.1
	MaxFactor = 10
)

// IsZero says whether nothing is multiplied.
func (m *Multiply) IsZero() bool { return len(m.Countries) == 0 && len(m.ASNs) == 0 }

// Factor is what points of a source in this country and this system are multiplied by: the product of both
// multipliers within the bounds of one, 1 where neither has any. An empty country and system 0 are unknown.
func (m *Multiply) Factor(country string, asn uint32) float64 {
	factor := 1.0
	if f, ok := m.Countries[country]; ok {
		factor = f
	}
	if f, ok := m.ASNs[ASN(asn)]; ok {
		factor *= f
	}
	return min(max(factor, MinFactor), MaxFactor)
}

const maxGeoFiles = 10

// checkGeo checks the files' names, and what the multipliers make of the points.
func (ps *parser) checkGeo(g *Geo, p *Policy) {
	if len(g.Files) == 0 {
		g.Files = nil
	}
	if len(g.Files) > maxGeoFiles {
		ps.fail("geo.files", fmt.Sprintf("%d files", len(g.Files)),
			detail{allowed: fmt.Sprintf("up to %d", maxGeoFiles)})
		return
	}
	for i, name := range g.Files {
		at := fmt.Sprintf("geo.files[%d]", i)
		for _, ending := range []string{".gz", ".tgz", ".zip", ".csv"} {
			if strings.HasSuffix(name, ending) && !ps.failed[at] {
				ps.fail(at, "not in MaxMind's format",
					detail{value: ps.shownValue(at),
						hint: "unpack it: the .mmdb file in it, or the one of that format"})
			}
		}
		ps.checkAbsolutePath(at, name)
	}
	failDuplicates(ps, "geo.files", g.Files, ps.fail)
	if len(g.Files) == 0 && !g.Multiply.IsZero() && !ps.failed["geo.files"] {
		ps.warn("geo.multiply", "without geo.files nobody's place is known, so nothing is multiplied",
			detail{hint: "files: [/var/lib/GeoIP/GeoLite2-Country.mmdb]"})
	}
	ps.warnStrongMultipliers("geo.multiply.countries", slices.Collect(keysOf(g.Multiply.Countries)), p)
	ps.warnStrongMultipliers("geo.multiply.asns", slices.Collect(keysOf(g.Multiply.ASNs)), p)
}

// namedFactor is a multiplier under the name that the file gives it.
type namedFactor struct {
	name   string
	factor float64
}

func keysOf[K interface {
	~string | ~uint32
}](m map[K]float64) func(yield func(namedFactor) bool) {
	return func(yield func(namedFactor) bool) {
		for key, factor := range m {
			if !yield(namedFactor{fmt.Sprint(key), factor}) {
				return
			}
		}
	}
}

// warnStrongMultipliers warns of multipliers with which one mistake of a customer is a ban.
func (ps *parser) warnStrongMultipliers(path string, factors []namedFactor, p *Policy) {
	most := max(p.Points.UnknownAccount, p.Points.WrongPassword, p.Points.ACL, p.Points.UnansweredChallenge,
		p.Points.Manager)
	if most >= p.Threshold || most == 0 || ps.failed["policy"] || ps.failed["policy.threshold"] {
		return // said already
	}
	slices.SortFunc(factors, func(a, b namedFactor) int { return cmp.Compare(a.name, b.name) })
	for _, x := range factors {
		if x.factor*most >= p.Threshold {
			ps.warn(path, fmt.Sprintf("with %s for %s, a single event reaches the threshold, a customer's mistake too",
				formatFloat(x.factor), x.name),
				detail{hint: "less than " + formatFloat(math.Round(100*p.Threshold/most)/100)})
		}
	}
}

// decodeMultipliers decodes countries or asns, whose keys are the file's own.
func (ps *parser) decodeMultipliers(n *yaml.Node, path string, v reflect.Value) {
	_, countries := v.Interface().(map[string]float64)
	if n.Kind != yaml.MappingNode {
		hint := "{AS64496: 2}"
		if countries {
			hint = "{NL: 2}"
		}
		ps.fail(path, nodeKind(n)+" where a section belongs", detail{hint: hint})
		return
	}
	if len(n.Content)/2 > maxList {
		ps.fail(path, fmt.Sprintf("a section of %d entries", len(n.Content)/2),
			detail{allowed: fmt.Sprintf("at most %d", maxList)})
		return
	}
	ps.eachKey(n, path, func(key *yaml.Node, at string, value *yaml.Node) {
		var index reflect.Value
		if countries {
			code, ok := ps.countryKey(key, at)
			if !ok {
				return
			}
			index = reflect.ValueOf(code)
		} else {
			number, ok := ps.asnKey(key, at)
			if !ok {
				return
			}
			index = reflect.ValueOf(number)
		}
		factor := 0.0
		ps.decodeValue(value, at, reflect.ValueOf(&factor).Elem())
		switch {
		case ps.failed[at]:
			return
		case factor == 0:
			ps.fail(at, "with 0, every attacker from there could go on for ever", detail{value: ps.shownValue(at),
				allowed: factorsAllowed(), hint: formatFloat(MinFactor) +
					", or policy.allow for the addresses of your own people"})
			return
		case factor > MaxFactor:
			ps.fail(at, "out of range", detail{value: ps.shownValue(at), allowed: factorsAllowed(),
				hint: formatFloat(MaxFactor) +
					"; to keep a whole country out is the work of a firewall, see deploy/docs/geo.md"})
			return
		}
		inBounds(MinFactor, MaxFactor).check(ps, at, reflect.ValueOf(factor), inBounds(MinFactor, MaxFactor))
		if ps.failed[at] {
			return
		}
		if v.IsNil() {
			v.Set(reflect.MakeMap(v.Type()))
		}
		if v.MapIndex(index).IsValid() {
			ps.failAt(key, at, fmt.Sprintf("given twice, as %v in another spelling too", index),
				detail{hint: "remove one of them"})
			return
		}
		v.SetMapIndex(index, reflect.ValueOf(factor))
	})
}

func factorsAllowed() string { return formatFloat(MinFactor) + " to " + formatFloat(MaxFactor) }

// countryKey reads a country's code.
func (ps *parser) countryKey(key *yaml.Node, at string) (code string, ok bool) {
	code = strings.ToUpper(key.Value)
	if len(code) == 2 && slices.Contains(strings.Fields(countryCodes), code) {
		return code, true
	}
	d := detail{allowed: "two letters of ISO 3166-1, such as NL"}
	switch code {
	case "UK", "EN":
		d.hint = "GB"
	case "EU", "AP":
		d.hint = "each country by itself"
	}
	ps.failAt(key, at, "not a country's code", d)
	return "", false
}

// asnKey reads the number of an autonomous system.
func (ps *parser) asnKey(key *yaml.Node, at string) (ASN, bool) {
	digits := strings.TrimPrefix(strings.TrimPrefix(strings.ToUpper(key.Value), "AS"), "N")
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || n == 0 || !isDecimal(digits, false) {
		ps.failAt(key, at, "not the number of an autonomous system",
			detail{allowed: "AS1 to AS4294967295", hint: "AS64496, as ringwall why shows it"})
		return 0, false
	}
	return ASN(n), true
}

// countryCodes are those of ISO 3166-1 alpha-2, and XK, which every maker of such files writes for Kosovo.
const countryCodes = `
	AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ
	CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR
	GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT
	JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO
	MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY
	QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO
	TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW XK`

// writeMultipliers writes countries or asns, in order.
func (p *printer) writeMultipliers(v reflect.Value, name string, depth int) {
	if v.Len() == 0 {
		p.writeLine(depth, name+": {}")
		return
	}
	p.writeLine(depth, name+":")
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int {
		if a.Kind() == reflect.String {
			return cmp.Compare(a.String(), b.String())
		}
		return cmp.Compare(a.Uint(), b.Uint())
	})
	for _, key := range keys {
		text := fmt.Sprint(key)
		if !plainInYAML(text) {
			text = quoteYAML(text) // NO is Norway, and no yes or no
		}
		p.writeLine(depth+1, text+": "+formatFloat(v.MapIndex(key).Float()))
	}
}

// isMultiplier says whether t is countries or asns.
func isMultiplier(t reflect.Type) bool {
	return t == reflect.TypeFor[map[string]float64]() || t == reflect.TypeFor[map[ASN]float64]()
}
