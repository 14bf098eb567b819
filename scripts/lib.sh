# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
#
# What the scripts share: paths, messages, the lock on build/. To be sourced
# from a bash script that runs with "set -eu".

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
build=$top/build
base=6.12
patches=$top/patches/$base

me=${0##*/}

say()  { printf '%s\n' "$*" >&2; }
warn() { printf '%s: %s\n' "$me" "$*" >&2; }
die()  { warn "$*"; exit 1; }

# git in this repository, also if somebody else owns the files (as in CI)
in_repo() { git -c safe.directory="$top" -C "$top" "$@"; }

# duration SECONDS: "3m07s"
duration()
{
	printf '%dm%02ds' $(($1 / 60)) $(($1 % 60))
}

# lock NAME FILE [-s]: wait for FILE's lock and keep it until the script ends; -s:
# together with others that ask for it so. What the script starts inherits the
# lock, so NAME is remembered and not taken twice.
lock()
{
	local fd

	case " ${STACKMUX_LOCKS:-} " in *" $1 "*) return 0 ;; esac
	mkdir -p "$(dirname "$2")"
	exec {fd}>"$2"
	if ! flock -n ${3+"$3"} "$fd"; then
		say "$me: waiting for another script that works on ${2%/*}"
		flock ${3+"$3"} "$fd"
	fi
	export STACKMUX_LOCKS="${STACKMUX_LOCKS:-} $1"
}

# The source trees change under an exclusive lock, and are built under a shared one.
lock_sources()  { lock sources "$build/.lock"; }
share_sources() { lock sources "$build/.lock" -s; }

# Debian's kernel source. LINUX_TARBALL selects another one.
tarball=${LINUX_TARBALL:-/usr/src/linux-source-$base.tar.xz}

# The version inside of the tarball, as found when it was unpacked; empty if
# this tarball was not unpacked yet.
unpacked_version()
{
	local key want stamp=$build/src/.tarball

	[ -e "$stamp" ] || return 0
	want=$(tarball_key)
	read -r key < "$stamp"
	[ "$key" = "$want" ] || return 0
	sed -n 2p "$stamp"
}

tarball_key()
{
	stat -L -c '%n:%s:%.9Y' "$tarball"
}

# source_tree stock|stackmux: path of the prepared tree; dies without one.
source_tree()
{
	local ver

	ver=$(unpacked_version)
	[ -n "$ver" ] && [ -d "$build/src/$1-$ver" ] ||
		die "no source tree yet: run scripts/prepare"
	echo "$build/src/$1-$ver"
}

# kernel_tree KERNEL: which of the two source trees a kernel is built from.
kernel_tree()
{
	case $1 in
	stock|bench-stock|zero-stock)          source_tree stock ;;
	release|debug|bench-release|zero-off)  source_tree stackmux ;;
	*)              die "unknown kernel '$1' (stock, release, debug, bench-stock or bench-release)" ;;
	esac
}

jobs=${JOBS:-$(nproc)}

# What every call of the kernel's make gets: constants instead of date, user
# and host, so that equal sources give equal objects (and compiler cache hits).
# make_args is an array for the caller.
export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970'
export KBUILD_BUILD_USER=stackmux
export KBUILD_BUILD_HOST=localhost
export KBUILD_BUILD_VERSION=1
make_args=(ARCH=x86_64)
# Not for the build's own tools: depend mode leaves out the headers of the system.
if command -v ccache >/dev/null && [ -z "${NO_CCACHE:-}" ]; then
	make_args+=("CC=$top/scripts/cc")
	export CCACHE_DEPEND=1
fi

# as_root COMMAND...: by sudo, if that asks nothing
as_root()
{
	if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

# need_packages DIR PACKAGE...: install those that are missing; what apt-get says is
# in DIR/apt.log. None of them starts a service; with DIR --no-services there is none.
need_packages()
{
	local dir=$1 package policy=/usr/sbin/policy-rc.d allowed='' missing=() words

	shift
	if [ "$1" = --no-services ]; then
		allowed=101
		shift
	fi
	for package; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
			missing+=("$package")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	command -v apt-get >/dev/null ||
		die "this is no Debian: provide the equivalents of: ${missing[*]}"
	as_root true 2>/dev/null ||
		die "these packages are missing, and only root can install them:" \
		    $'\n'"    apt-get install ${missing[*]}"
	# Forbids that the packages start their services. If the machine has a policy
	# of its own it is left as it is, and has to forbid that, too.
	if [ -n "$allowed" ]; then
		:
	elif [ -e "$policy" ] || [ -L "$policy" ]; then
		allowed=0
		as_root "$policy" redis-server start >/dev/null 2>&1 || allowed=$?
		[ "$allowed" -eq 101 ] ||
			die "$policy lets packages start services; install yourself:" \
			    $'\n'"    apt-get install ${missing[*]}"
	else
		# Not over a file that has come meanwhile
		as_root sh -c "set -C; printf '#!/bin/sh\nexit 101\n' > $policy && chmod 755 $policy" ||
			die "cannot write $policy"
		# shellcheck disable=SC2064
		trap "as_root rm -f '$policy'" EXIT
		trap 'exit 130' INT
		trap 'exit 143' TERM HUP
	fi
	say "installing ${missing[*]}"
	mkdir -p "$dir"
	: > "$dir/apt.log"
	for words in update "install -y --no-install-recommends ${missing[*]}"; do
		# shellcheck disable=SC2086
		as_root env DEBIAN_FRONTEND=noninteractive apt-get $words >> "$dir/apt.log" 2>&1 </dev/null || {
			tail -20 "$dir/apt.log" >&2
			die "apt-get ${words%% *} failed (Debian 12 with its security updates has all" \
			    "packages; see ${dir#"$top"/}/apt.log)"
		}
	done
	[ -z "$allowed" ] || return 0
	as_root rm -f "$policy"
	trap - EXIT INT TERM HUP
}
