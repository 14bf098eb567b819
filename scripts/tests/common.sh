# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
#
# What the tests of the scripts share. To be sourced from a bash script that runs with
# "set -eu". Writes KTAP.

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
n=0
failed=0
echo "TAP version 13"

# result STATUS NAME [FILE...]: one test; FILEs say why it failed
result()
{
	n=$((n + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $n - $2"
	else
		echo "not ok $n - $2"
		failed=1
		shift 2
		[ $# -eq 0 ] || sed 's/^/# /' "$@" | head -60
	fi
}

# check NAME COMMAND...: one test, that it ends with 0
check()
{
	local name=$1 status=0

	shift
	"$@" > "$work/out" 2>&1 || status=$?
	[ $status -eq 0 ] || echo "status $status: $*" >> "$work/out"
	result $status "$name" "$work/out"
}

# ends STATUS PATTERN COMMAND...: the command does, and says a line that matches
ends()
{
	local want=$1 pattern=$2 status=0

	shift 2
	"$@" > "$work/said" 2>&1 || status=$?
	[ $status -eq "$want" ] && grep -q -- "$pattern" "$work/said" || {
		echo "status $status, not $want, or no line with: $pattern"
		cat "$work/said"
		return 1
	}
}

# fails PATTERN COMMAND...: with any status
fails()
{
	local pattern=$1

	shift
	! "$@" > "$work/said" 2>&1 || { echo "did not fail: $*"; return 1; }
	[ -z "$pattern" ] || grep -q -- "$pattern" "$work/said" || { cat "$work/said"; return 1; }
}

# is EXPECTED GOT
is() { diff <(echo "$1") <(echo "$2"); }

# The last words of a test
finish()
{
	echo "1..$n"
	exit $failed
}
