# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
#
# What the groups of scripts/bench share. A group writes one figure per line to
# stdout: name, column, value and unit, separated by tabs. To be sourced from a bash
# script that runs with "set -eu".
#
# From scripts/bench/run, in the environment:
#   BENCH_QUICK    not empty: fewer rounds
#   BENCH_CPU      QEMU's processor model
#   BENCH_COLUMNS  only these columns
#   BENCH_USUAL    not empty: in the kernels stock and release

. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

bench=$build/bench
quick=${BENCH_QUICK:-}
cpu=${BENCH_CPU:-max}
read -r -a columns <<< "${BENCH_COLUMNS:-stock off idle parked}"
roundtrip=$bench/roundtrip
wakeup=$bench/wakeup

# no_arguments TEXT ARGUMENT...: a group takes none but --help, which prints TEXT
no_arguments()
{
	[ $# -gt 1 ] || return 0
	printf 'usage: scripts/bench/%s\n\n%s\n' "$me" "$1"
	case $2 in
	-h|--help) exit 0 ;;
	esac
	die "unknown argument '$2'"
}

build_programs()
{
	mkdir -p "$bench"
	make -s -C "$(source_tree stackmux)/tools/testing/selftests/stackmux" \
		OUTPUT="$bench" KHDR_INCLUDES= "$roundtrip" "$wakeup" >&2 ||
		die "cannot build roundtrip and wakeup"
}

# How a column's kernel is booted, and how its process is started
column_parameter() { [ "$1" != off ] || echo "stackmux=off"; }

column_option()
{
	case $1 in
	idle)    echo "--idle" ;;
	parked)  echo "--park" ;;
	esac
}

many_threads="echo 4194304 > /proc/sys/kernel/pid_max"
many_threads+=" && echo 4194304 > /proc/sys/kernel/threads-max"

# in_guest COLUMN MEM COMMAND OPTION...: its output, each line of roundtrip and wakeup
# preceded by the column. If the guest fails there are figures missing, which
# scripts/bench/run notices; others may still come.
in_guest()
{
	local column=$1 mem=$2 command=$3

	shift 3
	"$top/scripts/vm" --initramfs --cpu "$cpu" --mem "$mem" \
		--append "$(column_parameter "$column")" --timeout 3400 \
		--file "$roundtrip" --file "$wakeup" "$@" -- sh -c "$command" |
		sed "s/^/column=$column /" || warn "$column: the guest failed"
}

# counted COLUMN MEM COMMAND: where the clock counts instructions. Output is kept back
# to the end: the host takes it whenever it likes, and interrupts when it has done so.
counted()
{
	local kernel=release show="cat /tmp/out; cat /tmp/err >&2"

	[ "$1" != stock ] || kernel=stock
	[ -n "${BENCH_USUAL:-}" ] || kernel=bench-$kernel
	say "  $me: $1"
	in_guest "$1" "$2" "($3) > /tmp/out 2> /tmp/err; $show" --kernel "$kernel" --icount
}

# figures UNIT KEY[=NAME]...: of lines of "key=value", those that have KEY, as figures;
# without NAME the name is that of the mode
figures()
{
	awk -v keys="$*" '
	BEGIN {
		n = split(keys, part, " ")
		unit = part[1]
	}
	{
		delete f
		for (i = 1; i <= NF; i++) {
			p = index($i, "=")
			f[substr($i, 1, p - 1)] = substr($i, p + 1)
		}
		for (i = 2; i <= n; i++) {
			key = name = part[i]
			if (p = index(key, "=")) {
				name = substr(key, p + 1)
				key = substr(key, 1, p - 1)
			} else {
				name = f["mode"]
			}
			if (key in f)
				printf "%s\t%s\t%s\t%s\n", name, f["column"], f[key], unit
		}
		fflush()
	}'
}
