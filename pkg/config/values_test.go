package config_test

import "testing"

func TestMistakesOfValues(t *testing.T) {
	demand(t, []mistake{
		{"no space after the colon", base + `policy: {threshold:5}
`,
			`ringwall.yaml:5: policy."threshold:5": unknown key, did you mean threshold?; allowed: mode, threshold, half_life, points, honeypots, ban, trust, ipv6_prefix, networks, services, signatures, allow, proxies, max_sources, misconfigured, challenges, breach, targeted, roaming, newplace, storm, limits`},
		{"text for a number", base + `policy:
  threshold: ten
`,
			`ringwall.yaml:6: policy.threshold: not a number: "ten"; allowed: a number such as 10 or 2.5, without quotes`},
		{"a number in quotes", base + `policy:
  threshold: "10"
`,
			`ringwall.yaml:6: policy.threshold: not a number: "10"; allowed: a number such as 10 or 2.5, without quotes; try: 10`},
		{"a comma in a number", base + `policy:
  threshold: 2,5
`,
			`ringwall.yaml:6: policy.threshold: not a number: "2,5"; allowed: a number such as 10 or 2.5, without quotes; try: 2.5`},
		{"an octal number", base + `firewall:
  ports: {udp: [010]}
`,
			`ringwall.yaml:6: firewall.ports.udp[0]: not a whole number: "010"; allowed: a whole number such as 10, without quotes; try: 10`},
		{"an infinite number", base + `policy:
  points: {honeypot: .inf}
`,
			`ringwall.yaml:6: policy.points.honeypot: not a number: ".inf"; allowed: a number such as 10 or 2.5, without quotes`},
		{"a fraction of a source", base + `policy:
  max_sources: 2000.5
`,
			`ringwall.yaml:6: policy.max_sources: not a whole number: "2000.5"; allowed: a whole number such as 10, without quotes`},
		{"text for yes or no", base + `firewall:
  meter: {enabled: maybe}
`,
			`ringwall.yaml:6: firewall.meter.enabled: not a yes or no: "maybe"; allowed: true or false, without quotes`},
		{"a list for a number", base + `policy:
  threshold: [5]
`,
			`ringwall.yaml:6: policy.threshold: a list where a number belongs`},
		{"text for a list", base + `policy:
  allow: 192.0.2.1
`,
			`ringwall.yaml:6: policy.allow: text where a list belongs; try: [192.0.2.1]`},
		{"a section for a list", `asterisk:
  address: 127.0.0.1
  username: ringwall
  secret: hunter2
`,
			`ringwall.yaml:2: asterisk: a section where a list belongs; try: - before the first key, and the other keys below it`},
		{"a number for a section", base + `policy: 5
`,
			`ringwall.yaml:5: policy: a number where a section belongs; allowed: the keys mode, threshold, half_life, points, honeypots, ban, trust, ipv6_prefix, networks, services, signatures, allow, proxies, max_sources, misconfigured, challenges, breach, targeted, roaming, newplace, storm, limits; try: key: value, with a space after the colon`},
		{"a key without a value", base + `policy:
  threshold:
`,
			`ringwall.yaml:6: policy.threshold: no value; allowed: a number; try: remove the key for the default; a value that begins with # & * ! or is "null" belongs in double quotes`},
		{"a duration without a unit", base + `policy:
  half_life: 600
`,
			`ringwall.yaml:6: policy.half_life: a duration without a unit: "600"; allowed: a number with a unit: s, m, h, d or w, as in 90s, 10m, 24h, 7d, 1w, 1h30m; try: 600s for seconds, 600m for minutes`},
		{"a duration in words", base + `policy:
  half_life: 10 minutes
`,
			`ringwall.yaml:6: policy.half_life: not a duration: "10 minutes"; allowed: a number with a unit: s, m, h, d or w, as in 90s, 10m, 24h, 7d, 1w, 1h30m; try: 10m`},
		{"a negative duration", base + `policy:
  half_life: -5m
`,
			`ringwall.yaml:6: policy.half_life: a negative duration: "-5m"; allowed: a number with a unit: s, m, h, d or w, as in 90s, 10m, 24h, 7d, 1w, 1h30m`},
		{"a duration of a hundred years", base + `policy:
  ban: {max: 36500d}
`,
			`ringwall.yaml:6: policy.ban.max: longer than ten years: "36500d"; allowed: a number with a unit: s, m, h, d or w, as in 90s, 10m, 24h, 7d, 1w, 1h30m`},
		{"no half-life", base + `policy:
  half_life: 0s
`,
			`ringwall.yaml:6: policy.half_life: out of range: "0s"; allowed: 1s to 3650d`},
		{"no threshold", base + `policy:
  threshold: 0
`,
			`ringwall.yaml:6: policy.threshold: out of range: "0"; allowed: 0.1 to 1000000; try: policy.mode: observe to ban nobody`},
		{"negative points", base + `policy:
  points:
    acl: -4
`,
			`ringwall.yaml:7: policy.points.acl: out of range: "-4"; allowed: 0 to 1000000; try: 0 to ignore it`},
		{"a factor below one", base + `policy:
  ban:
    factor: 0.5
`,
			`ringwall.yaml:7: policy.ban.factor: out of range: "0.5"; allowed: 1 to 1000; try: 1 for bans that are all equally long`},
		{"a ban of no time", base + `policy:
  ban:
    first: 500ms
`,
			`ringwall.yaml:7: policy.ban.first: out of range: "500ms"; allowed: 1s to 3650d`},
		{"a first ban longer than the longest", base + `policy:
  ban:
    first: 2h
    max: 1h
`,
			`ringwall.yaml:8: policy.ban.max: first (2h) is longer than max (1h); try: max: 2h`},
		{"a first ban longer than the default of the longest", base + `policy:
  ban:
    first: 2w
`,
			`ringwall.yaml:7: policy.ban.first: first (14d) is longer than max (7d); try: max: 14d`},
		{"an IPv6 source as large as a provider", base + `policy:
  ipv6_prefix: 16
`,
			`ringwall.yaml:6: policy.ipv6_prefix: out of range: "16"; allowed: 32 to 128; try: 64: providers give a customer no less than a /64, and share a /32 among all of theirs`},
		{"a network as large as a country", base + `policy:
  networks: {ipv4_prefix: 8}
`,
			`ringwall.yaml:6: policy.networks.ipv4_prefix: out of range: "8"; allowed: 16 to 30; try: 24`},
		{"a network for one source", base + `policy:
  networks: {sources: 1}
`,
			`ringwall.yaml:6: policy.networks.sources: with 1, one banned source would ban its whole network: "1"; allowed: 0 for off, or 2 to 65536; try: 8`},
		{"a storm of one source", base + `policy:
  storm: {sources: 1}
`,
			`ringwall.yaml:6: policy.storm.sources: with 1, a single source could suspend its own ban: "1"; allowed: 0 for off, or 2 to 100000; try: 5`},
		{"more forgeable bans than bans", base + `policy:
  limits: {bans: 1000, forgeable_bans: 2000}
`,
			`ringwall.yaml:6: policy.limits.forgeable_bans: more than all bans (1000): "2000"; try: 500`},
		{"a service with a small letter", base + `policy:
  services:
    pjsip: observe
`,
			`ringwall.yaml:7: policy.services.pjsip: unknown service, did you mean PJSIP?; allowed: PJSIP, AMI, SIP, HTTP, IAX2`},
		{"IAX2", base + `policy:
  services:
    iax: enforce
`,
			`ringwall.yaml:7: policy.services.iax: unknown service, did you mean IAX2?; allowed: PJSIP, AMI, SIP, HTTP, IAX2`},
		{"a mode of its own", base + `policy:
  mode: enforced
`,
			`ringwall.yaml:6: policy.mode: not one of the values: "enforced"; allowed: enforce, observe; try: enforce`},
		{"a mode of a service", base + `policy:
  services:
    SIP: off
`,
			`ringwall.yaml:7: policy.services.SIP: not one of the values: "off"; allowed: enforce, observe; try: observe`},
		{"learn with no", base + `    learn: no
`,
			`ringwall.yaml:5: asterisk[0].learn: not one of the values: "no"; allowed: auto, off; try: off`},
		{"an unknown way to log in", base + `    auth: md6
`,
			`ringwall.yaml:5: asterisk[0].auth: not one of the values: "md6"; allowed: md5, plain; try: md5`},
		{"a level of another logger", base + `log:
  level: warning
`,
			`ringwall.yaml:6: log.level: not one of the values: "warning"; allowed: debug, info, warn, error; try: warn`},
		{"a bad regular expression", base + `policy:
  trust:
    match: '^[a-z0-9{8}$'
`,
			`ringwall.yaml:7: policy.trust.match: not a regular expression, missing closing ] at character 2: "^[a-z0-9{8}$"; allowed: a regular expression of Go (RE2); try: ^[a-z0-9]{8}$`},
		{"an allowed address with a typo", base + `policy:
  allow:
    - 192.0.2.256
`,
			`ringwall.yaml:7: policy.allow[0]: neither an address nor a host name: "192.0.2.256"; allowed: an address, a network such as 192.0.2.0/24, or a host name`},
		{"an allowed range", base + `policy:
  allow: [192.0.2.1-192.0.2.9]
`,
			`ringwall.yaml:6: policy.allow[0]: neither an address nor a host name: "192.0.2.1-192.0.2.9"; allowed: an address, a network such as 192.0.2.0/24, or a host name; try: 192.0.2.1, 192.0.2.2/31, 192.0.2.4/30, 192.0.2.8/31`},
		{"two addresses in one entry", base + `policy:
  allow: [192.0.2.1 192.0.2.2]
`,
			`ringwall.yaml:6: policy.allow[0]: neither an address nor a host name: "192.0.2.1 192.0.2.2"; allowed: an address, a network such as 192.0.2.0/24, or a host name; try: 192.0.2.1, 192.0.2.2`},
		{"an allowed URL", base + `policy:
  allow: ['https://example.net']
`,
			`ringwall.yaml:6: policy.allow[0]: neither an address nor a host name: "https://example.net"; allowed: an address, a network such as 192.0.2.0/24, or a host name; try: example.net`},
		{"an allowed zone", base + `policy:
  allow: ['fe80::1%eth0']
`,
			`ringwall.yaml:6: policy.allow[0]: an address with a zone, which says nothing about other machines: "fe80::1%eth0"; allowed: an address, a network such as 192.0.2.0/24, or a host name; try: fe80::1`},
		{"everybody allowed", base + `policy:
  allow: [0.0.0.0/0]
`,
			`ringwall.yaml:6: policy.allow[0]: allows so many addresses that attackers are among them: "0.0.0.0/0"; allowed: networks from /8 (IPv4) or /16 (public IPv6) on; try: the networks of your own phones and trunks`},
		{"everybody allowed by IPv6", base + `policy:
  allow: ['::/0']
`,
			`ringwall.yaml:6: policy.allow[0]: allows so many addresses that attackers are among them: "::/0"; allowed: networks from /8 (IPv4) or /16 (public IPv6) on; try: the networks of your own phones and trunks`},
		{"half of everybody allowed", base + `policy:
  allow: [128.0.0.0/1]
`,
			`ringwall.yaml:6: policy.allow[0]: allows so many addresses that attackers are among them: "128.0.0.0/1"; allowed: networks from /8 (IPv4) or /16 (public IPv6) on; try: the networks of your own phones and trunks`},
		{"an empty honeypot", base + `policy:
  honeypots: ['']
`,
			`ringwall.yaml:6: policy.honeypots[0]: an empty account name: ""; try: remove it`},
		{"<unknown> as a honeypot", base + `policy:
  honeypots: [<unknown>]
`,
			`ringwall.yaml:6: policy.honeypots[0]: Asterisk calls every account <unknown> before it has logged in, those of your phones too: "<unknown>"; try: remove it`},
		{"a honeypot longer than Asterisk reports", base + `policy:
  honeypots: [aaaaaaaaaabbbbbbbbbbccccccccccddddddd]
`,
			`ringwall.yaml:6: policy.honeypots[0]: can never match an account: "aaaaaaaaaabbbbbbbbbbccccccccccddddddd"; allowed: 1 to 36 bytes on one line; Asterisk reports no more of a name`},
		{"too few sources", base + `policy:
  max_sources: 10
`,
			`ringwall.yaml:6: policy.max_sources: out of range: "10"; allowed: 1000 to 10000000`},
		{"a port that does not exist", base + `firewall:
  ports:
    udp: [5060, 65536]
`,
			`ringwall.yaml:7: firewall.ports.udp[1]: out of range: "65536"; allowed: 1 to 65535`},
		{"port zero", base + `firewall:
  ports:
    udp: [0]
`,
			`ringwall.yaml:7: firewall.ports.udp[0]: out of range: "0"; allowed: 1 to 65535`},
		{"a port twice", base + `firewall:
  ports:
    tcp: [5060, 5061, 5060]
`,
			`ringwall.yaml:7: firewall.ports.tcp[2]: given twice: "5060"; try: remove one of them`},
		{"ports of a word that is not auto", base + `firewall:
  ports: all
`,
			`ringwall.yaml:6: firewall.ports: text that is neither auto nor lists of ports: "all"; allowed: auto, or the keys udp, tcp; try: {udp: [5060], tcp: [5060, 5061]}`},
		{"ports without a protocol", base + `firewall:
  ports: [5060, 5080]
`,
			`ringwall.yaml:6: firewall.ports: a list that is neither auto nor lists of ports; allowed: auto, or the keys udp, tcp; try: {udp: [5060], tcp: [5060, 5061]}`},
		{"no port at all", base + `firewall:
  ports: {udp: [], tcp: []}
`,
			`ringwall.yaml:6: firewall.ports: no port at all, so a ban would stop nothing; try: remove it for the default, or scope: all`},
		{"a table that nft cannot name", base + `firewall:
  table: ring wall
`,
			`ringwall.yaml:6: firewall.table: not a name for an nftables table: "ring wall"; allowed: a letter or _, then up to 63 letters, digits, _ or -`},
		{"somebody else's table", base + `firewall:
  table: filter
`,
			`ringwall.yaml:6: firewall.table: another program's table, which Ringwall would overwrite: "filter"; try: ringwall`},
		{"a chain after connection tracking", base + `firewall:
  priority: -100
`,
			`ringwall.yaml:6: firewall.priority: out of range: "-100"; allowed: -399 to -201; try: -300: after fragments are joined (-400), before connection tracking (-200), or running calls go on`},
		{"a meter that lets nothing through", base + `firewall:
  meter: {enabled: true, rate: 0}
`,
			`ringwall.yaml:6: firewall.meter.rate: out of range: "0"; allowed: 1 to 1000000`},
		{"a burst below nothing", base + `firewall:
  meter: {burst: -1}
`,
			`ringwall.yaml:6: firewall.meter.burst: out of range: "-1"; allowed: 1 to 10000000`},
		{"metrics without a port", base + `metrics:
  listen: 127.0.0.1
`,
			`ringwall.yaml:6: metrics.listen: not an address to listen on: "127.0.0.1"; allowed: HOST:PORT, or "" for off; try: 127.0.0.1:9646`},
		{"a page that is neither on nor off", base + `metrics:
  page: "on"
`,
			`ringwall.yaml:6: metrics.page: not a yes or no: "on"; allowed: true or false, without quotes`},
		{"a socket with a relative path", base + `control:
  socket: ringwall.sock
`,
			`ringwall.yaml:6: control.socket: not a file's whole path: "ringwall.sock"; allowed: a path that begins with /`},
		{"a socket with too long a path", base + `control:
  socket: /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
`,
			`ringwall.yaml:6: control.socket: longer than the kernel allows for a socket: "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"…; allowed: up to 107 bytes`},
		{"a state that is a folder", base + `state:
  path: /var/lib/ringwall/
`,
			`ringwall.yaml:6: state.path: not a file's whole path: "/var/lib/ringwall/"; allowed: a path that begins with /`},
		{"a group with a space", base + `control:
  group: voip admins
`,
			`ringwall.yaml:6: control.group: not a group: "voip admins"; allowed: the name of a group, or "" for the daemon's own`},
	})
}
