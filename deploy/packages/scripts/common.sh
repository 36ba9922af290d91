# Common to the scripts of both kinds of packages; build puts it in front of each.

config=/etc/ringwall/ringwall.yaml
secret=/etc/ringwall/ami-secret
manager=/etc/ringwall/asterisk-manager.conf

systemd_runs() { [ -d /run/systemd/system ]; }

add_user() {
	if getent passwd ringwall >/dev/null && getent group ringwall >/dev/null; then
		return 0
	fi
	if command -v systemd-sysusers >/dev/null &&
		echo 'u ringwall - "Ringwall keeps attackers away from Asterisk" /var/lib/ringwall' | systemd-sysusers -; then
		return 0
	fi
	getent group ringwall >/dev/null || groupadd --system ringwall
	getent passwd ringwall >/dev/null || useradd --system --gid ringwall --home-dir /var/lib/ringwall --no-create-home \
		--shell /usr/sbin/nologin --comment "Ringwall keeps attackers away from Asterisk" ringwall
}

# The configuration as it is packaged works from the first minute: with a secret that no other machine has.
make_secret() {
	grep -q "^[[:space:]]*secret_file:[[:space:]]*$secret" $config 2>/dev/null || return 0
	[ ! -e $secret ] || return 0
	value=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
	(
		umask 077
		echo "$value" >$secret.new
		cat >$manager <<TEXT
; What Asterisk needs to let Ringwall in: copy this to /etc/asterisk/manager.d/ringwall.conf (FreePBX: append it to
; manager_custom.conf), then: asterisk -rx 'manager reload'
; In manager.conf, [general] needs enabled = yes; keep bindaddr = 127.0.0.1 there.
[ringwall]
secret = $value
read = security
write =
deny = 0.0.0.0/0.0.0.0
permit = 127.0.0.1/255.255.255.255
writetimeout = 5000
TEXT
	)
	chgrp ringwall $secret.new
	chmod 0640 $secret.new
	mv $secret.new $secret
}

make_folders() {
	if command -v systemd-tmpfiles >/dev/null && systemd-tmpfiles --create ringwall.conf; then
		return 0
	fi
	mkdir -p /var/lib/ringwall
	chown ringwall:ringwall /var/lib/ringwall
	chmod 0700 /var/lib/ringwall
}

welcome() {
	[ -s $manager ] || return 0
	cat <<TEXT

Ringwall is installed. It will start with the machine, but not yet: Asterisk does not know it. As root:

  1. install -o asterisk -g asterisk -m 0640 $manager /etc/asterisk/manager.d/ringwall.conf
     (FreePBX: cat $manager >>/etc/asterisk/manager_custom.conf)
  2. asterisk -rx 'manager reload'
  3. systemctl start ringwall
  4. ringwall doctor

Or let ringwall setup do 1 and 2: it shows what it will write, and asks.

It bans nobody yet, and says whom it would ban. To ban: mode: enforce in $config,
then: systemctl reload ringwall

TEXT
}

# with_hub says whether this machine serves a fleet: that is nothing which a package begins.
with_hub() { [ -e /var/lib/ringwall-hub ]; }

restart_hub() {
	systemd_runs && with_hub || return 0
	systemctl try-restart ringwall-hub.service || echo "ringwall: systemctl status ringwall-hub" >&2
}

# restart lets the new program run where the old one ran. Bans stay in the kernel meanwhile. The unit's reload checks
# the configuration with the new program, as the service would: with a mistake the old one goes on.
restart() {
	systemd_runs || return 0
	# After a removal too: the configuration is the old one, and whoever installs again may believe that all is as before.
	systemctl is-active --quiet ringwall.service || {
		echo "ringwall: it does not run, so nobody is banned: systemctl start ringwall; ringwall doctor"
		return 0
	}
	if systemctl reload ringwall.service; then
		systemctl try-restart ringwall.service || echo "ringwall: it did not start again: systemctl status ringwall" >&2
	else
		echo "ringwall: the new version does not accept the configuration, so the old one goes on:" >&2
		echo "  ringwall check; systemctl restart ringwall" >&2
	fi
}

# remove_table: whoever removes Ringwall wants its bans gone. Nothing else is in its table.
remove_table() {
	table=$(/usr/bin/ringwall check --print 2>/dev/null |
		sed -n '/^firewall:/,/^[a-z]/s/^ *table: *"\{0,1\}\([A-Za-z0-9_-]*\)"\{0,1\} *$/\1/p' | head -n 1)
	drop_table "${table:-ringwall}"
}

drop_table() {
	if ! command -v nft >/dev/null; then
		echo "ringwall: bans in the kernel end by themselves, at the latest when the machine starts again" >&2
		return 0
	fi
	nft list table inet "$1" >/dev/null 2>&1 || return 0
	nft delete table inet "$1" || echo "ringwall: remove its bans by hand: nft delete table inet $1" >&2
}
