#!/bin/sh
# Installs Ringwall on a PBX, in observe mode: it says whom it would ban, and bans nobody.
#
#   curl -fsSL @URL@/install.sh | sh             installs it, as root
#   curl -fsSL @URL@/install.sh | sh -s -- --undo    undoes all of that
#
# It adds the key and the source of packages, installs the package, lets Ringwall in at Asterisk (ringwall setup), starts
# it, and has ringwall doctor prove that it works. It asks nothing. --undo removes Ringwall with its configuration, its bans and
# what it learned, if it was this script that installed it, and all that was written for it.
#
set -eu

url=@URL@
key_id=@KEYID@ # as rpm names the key
keyring=/etc/apt/keyrings/ringwall.asc
source=/etc/apt/sources.list.d/ringwall.sources
rpm_key=/etc/pki/rpm-gpg/RPM-GPG-KEY-ringwall
rpm_source=/etc/yum.repos.d/ringwall.repo
undo="curl -fsSL $url/install.sh | sh -s -- --undo"
mark="# Ringwall itself was installed by this install.sh"

say() { echo "ringwall: $*"; }
die() {
	echo "ringwall: $1" >&2
	[ -z "${2:-}" ] || echo "Try: $2" >&2
	exit 1
}

systemd_runs() { [ -d /run/systemd/system ]; }

print_key() {
	cat <<'TEXT'
@KEY@
TEXT
}

# only_ours: apt with this source alone. Another one that is broken, or slow, is no reason to fail.
only_ours() {
	apt_command=$1
	shift
	DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dir::Etc::SourceList="$source" -o Dir::Etc::SourceParts=- -o APT::Get::List-Cleanup=0 \
		-o DPkg::Lock::Timeout=120 "$apt_command" "$@" </dev/null
}

# installed_by_us: an earlier run of this script has installed Ringwall, and says so in the source that it wrote.
installed_by_us() { cat $source $rpm_source 2>/dev/null | grep -qxF "$mark"; }

# remember_owner: who installs Ringwall is whose --undo removes it.
remember_owner() {
	ours=
	if installed_by_us || ! command -v ringwall >/dev/null; then
		ours=yes
	fi
}

add_apt() {
	[ -d /etc/apt/keyrings ] || install -d -m 0755 /etc/apt/keyrings
	remember_owner
	print_key >$keyring
	cat >$source <<TEXT
# Written by $url/install.sh; to take it away: $undo
Types: deb
URIs: $url/apt
Suites: stable
Components: main
Signed-By: $keyring
TEXT
	chmod 0644 $keyring $source
	only_ours update -o APT::Update::Error-Mode=any || {
		remove_apt
		die "the packages at $url cannot be had, or their signature is not what it should be; nothing was changed"
	}
	[ -z "$ours" ] || echo "$mark" >>$source
	only_ours install --no-install-recommends ringwall || die "apt could not install Ringwall" "$undo"
}

remove_apt() {
	if [ -e $source ]; then
		# What apt keeps of this source, and of no other.
		only_ours indextargets --format '$(FILENAME)' 2>/dev/null | sed -n 's/_main_binary.*//p' | sort -u | while read -r lists; do
			rm -f "$lists"_*
		done
	fi
	rm -f $source $keyring
}

add_dnf() {
	mkdir -p /etc/pki/rpm-gpg
	remember_owner
	print_key >$rpm_key
	cat >$rpm_source <<TEXT
# Written by $url/install.sh; to take it away: $undo
[ringwall]
name=Ringwall
baseurl=$url/rpm/\$basearch
enabled=1
gpgcheck=1
repo_gpgcheck=1
gpgkey=file://$rpm_key
TEXT
	chmod 0644 $rpm_key $rpm_source
	[ -z "$ours" ] || echo "$mark" >>$rpm_source
	# Where it may skip a source that it cannot read, as most distributions have it, a wrong signature is no failure.
	"$dnf" -y --disablerepo='*' --enablerepo=ringwall --setopt=ringwall.skip_if_unavailable=0 makecache </dev/null || {
		remove_dnf
		die "the packages at $url cannot be had, or their signature is not what it should be; nothing was changed"
	}
	"$dnf" -y --setopt=install_weak_deps=False install ringwall </dev/null || die "$dnf could not install Ringwall" "$undo"
}

remove_dnf() {
	if [ -e $rpm_source ]; then
		"$dnf" -q --disablerepo='*' --enablerepo=ringwall clean all >/dev/null 2>&1 || true
		# It leaves whose signatures it believed, in a folder named after the source and a number of 16 digits.
		four='[0-9a-f][0-9a-f][0-9a-f][0-9a-f]'
		rm -rf /var/cache/dnf/ringwall-$four$four$four$four /var/cache/libdnf5/ringwall-$four$four$four$four
	fi
	rm -f $rpm_source $rpm_key
	# dnf has put it there when it saw it first (gpgkey=).
	rpm -q gpg-pubkey 2>/dev/null | grep "^gpg-pubkey-$key_id-" | while read -r imported; do
		rpm -e "$imported"
	done
}

start() {
	if ! systemd_runs; then
		say "there is no systemd here: start it yourself, with: ringwall run"
		return 0
	fi
	systemctl enable --now ringwall.service || die "it did not start" "systemctl status ringwall; or: $undo"
}

install_all() {
	case $kind in
	apt) add_apt ;;
	dnf) add_dnf ;;
	esac
	ringwall setup --yes || die "Ringwall is installed, but Asterisk does not let it in yet" "what is said above, then: ringwall setup"
	start
	# The doctor says by itself what is wrong, and how to mend it.
	ringwall doctor || exit 1
	say "it watches, and bans nobody yet. After a day: ringwall history; then mode: enforce in /etc/ringwall/ringwall.yaml"
}

undo_all() {
	if command -v ringwall >/dev/null; then
		ringwall setup --undo --yes || die "what was written for Asterisk could not be removed, so nothing else was" "ringwall setup --undo"
	fi
	if installed_by_us && command -v ringwall >/dev/null; then
		ringwall panic >/dev/null || true # stops it, and takes its table out of the kernel, with or without nft
		case $kind in
		apt) DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 purge ringwall </dev/null ;;
		dnf)
			"$dnf" -y remove ringwall </dev/null
			rm -rf /etc/ringwall /var/lib/ringwall
			if getent passwd ringwall >/dev/null; then userdel ringwall || true; fi
			if getent group ringwall >/dev/null; then groupdel ringwall || true; fi
			;;
		esac
	elif command -v ringwall >/dev/null; then
		say "it was installed before, or by somebody else: the package stays"
	fi
	case $kind in
	apt) remove_apt ;;
	dnf) remove_dnf ;;
	esac
	say "all that this script did is undone"
}

# Everything is in functions: of a script that was cut on its way, nothing runs.
main() {
	case ${1:-} in
	"" | --undo) ;;
	*) die "unknown argument $1: allowed is --undo" ;;
	esac
	[ "$(id -u)" = 0 ] || die "needs root" "the same line with: | sudo sh"
	dnf=
	if command -v apt-get >/dev/null; then
		kind=apt
	elif dnf=$(command -v dnf || command -v yum); then
		kind=dnf
	else
		die "neither apt nor dnf is here" "the program alone, without a package: $url"
	fi
	if [ "${1:-}" = --undo ]; then
		undo_all
		return
	fi
	release=$(uname -r)
	major=${release%%.*} minor=${release#*.}
	minor=${minor%%[!0-9]*}
	if [ "$major" -lt 5 ] || { [ "$major" = 5 ] && [ "$minor" -lt 10 ]; }; then
		die "Linux $release cannot ban as Ringwall needs it: 5.10 or later can" "$url, or a Debian machine before the PBX"
	fi
	# Where ringwall setup looks.
	found=
	for folder in /etc/asterisk /usr/local/etc/asterisk /opt/asterisk/etc/asterisk; do
		[ ! -f $folder/manager.conf ] || found=yes
	done
	[ -n "$found" ] || die "there is no Asterisk here, so nothing was changed" \
		"install Asterisk first; one in an unusual folder wants the package by hand, then: ringwall setup --asterisk FOLDER"
	install_all
}

main "$@"
