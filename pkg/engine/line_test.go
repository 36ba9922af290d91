package engine

import (
	"encoding/json"
	"math"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ringwall/ringwall/pkg/security"
)

// reflected is the line as encoding/json writes it.
func reflected(d Decision) ([]byte, error) {
	j := decisionJSON{
		Time: d.Time, Action: d.Action, Reason: d.Reason, Points: round(d.Points), Score: round(d.Score),
		Account: d.Account, Transport: d.Transport.String(), Proven: d.Proven,
		Duration: d.Duration.Seconds(), PBX: d.PBX, Detail: d.Detail,
	}
	if d.Source.IsValid() {
		j.Source = d.Source.String()
	}
	if d.Prefix.IsValid() {
		j.Prefix = d.Prefix.String()
	}
	if d.Service != security.OtherService {
		j.Service = d.Service.String()
	}
	return json.Marshal(j)
}

func TestDecisionLineIsWhatReflectionWrites(t *testing.T) {
	t.Parallel()
	addrs := []netip.Addr{
		{}, netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7"), netip.MustParseAddr("::ffff:192.0.2.7"),
		netip.MustParseAddr("fe80::1").WithZone(`et"h<0`),
	}
	zones := []*time.Location{time.UTC, time.Local, time.FixedZone("", 3600), time.FixedZone("", 90*3600)}
	floats := []float64{0, math.Copysign(0, -1), 4, 2.5, -1, 1e15, 1e21, 1e-7, 99.9995, math.NaN(), math.Inf(1)}
	rapid.Check(t, func(r *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "1001", `a"b\c`, "<b>&", "\xff\xfe", "\u2028x", "ü", "\x7f\x00"}))
		number := rapid.OneOf(rapid.SampledFrom(floats), rapid.Float64())
		at := time.Unix(rapid.Int64Range(-1<<37, 1<<38).Draw(r, "s"), rapid.Int64Range(0, 999_999_999).Draw(r, "ns"))
		d := Decision{
			Time: at.In(rapid.SampledFrom(zones).Draw(r, "zone")), Action: Action(text.Draw(r, "action")),
			Source: rapid.SampledFrom(addrs).Draw(r, "source"), Reason: Reason(text.Draw(r, "reason")),
			Points: number.Draw(r, "points"), Score: number.Draw(r, "score"), Account: text.Draw(r, "account"),
			Service:   security.Service(rapid.Uint8Range(0, 12).Draw(r, "service")),
			Transport: security.Transport(rapid.Uint8Range(0, 12).Draw(r, "transport")),
			Proven:    rapid.Bool().Draw(r, "proven"), Duration: time.Duration(rapid.Int64().Draw(r, "duration")),
			PBX: text.Draw(r, "pbx"), Detail: text.Draw(r, "detail"),
		}
		if a := rapid.SampledFrom(addrs).Draw(r, "prefix"); a.IsValid() {
			d.Prefix = netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(r, "bits"))
		}
		want, wantErr := reflected(d)
		got, err := d.AppendJSON(nil)
		if (err == nil) != (wantErr == nil) {
			r.Fatalf("error %v, encoding/json has %v", err, wantErr)
		}
		if err == nil && string(got) != string(want) {
			r.Fatalf("got  %s\nwant %s", got, want)
		}
		var lines Lines
		other := d
		other.Time = d.Time.Add(time.Duration(rapid.SampledFrom([]int64{0, 1, 1e9}).Draw(r, "later")))
		for _, d := range []Decision{d, d, other, d} {
			want, wantErr := d.AppendJSON(nil)
			if got, err := lines.Append(nil, &d); (err == nil) != (wantErr == nil) || string(got) != string(want) {
				r.Fatalf("one after the other: %s, %v\nwant %s, %v", got, err, want, wantErr)
			}
		}
	})
}
