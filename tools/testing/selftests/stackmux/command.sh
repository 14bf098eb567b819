#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The stackmux command, the line "Stackmux:" of /proc/PID/status and the
# tracepoints, as those see them who use a shell. Also on a kernel without
# stackmux, where the command has to say so.

dir=$(cd "$(dirname "$0")" && pwd)
. "$dir/ktap_helpers.sh"

stackmux=$dir/stackmux
linger=/sys/kernel/debug/stackmux/linger
sysctl=/proc/sys/kernel/stackmux
slow=${STACKMUX_SLOW:-1}
tmp=$(mktemp -d)
children=

cleanup()
{
	# shellcheck disable=SC2086
	[ -z "$children" ] || kill $children 2>/dev/null
	[ ! -e "$linger" ] || echo "$old_linger" > "$linger"
	rm -rf "$tmp"
}
old_linger=$(cat "$linger" 2>/dev/null)
trap cleanup EXIT

# What was said is worth seeing when a test fails
result()
{
	if [ "$1" -eq 0 ]; then
		ktap_test_pass "$2"
	else
		sed 's/^/# /' "$tmp/out" "$tmp/err" 2>/dev/null
		ktap_test_fail "$2"
	fi
}

# gives STATUS COMMAND...: does it end with this status?
gives()
{
	want=$1
	shift
	"$@" > "$tmp/out" 2> "$tmp/err"
	got=$?
	[ $got -eq "$want" ] || {
		echo "# status $got instead of $want: $*"
		return 1
	}
}

# says TEXT: the last command's output has a line that matches
says() { grep -qE -- "$1" "$tmp/out" || { echo "# not said: $1"; return 1; }; }
complains() { grep -qE -- "$1" "$tmp/err" || { echo "# no complaint: $1"; return 1; }; }

word_of() { sed -n 's/^Stackmux:\t//p' "/proc/$1/status"; }

# becomes PID WORD: within the time that a busy machine may take
becomes()
{
	n=0
	while [ "$(word_of "$1")" != "$2" ]; do
		n=$((n + 1))
		[ $n -le $((100 * slow)) ] || {
			echo "# $1 is '$(word_of "$1")', not '$2'"
			return 1
		}
		sleep 0.1
	done
}

# background COMMAND...: start it, its process ID in $pid
background()
{
	"$@" > /dev/null 2>&1 &
	pid=$!
	children="$children $pid"
}

t_usage()
{
	gives 0 "$stackmux" --help && says '^usage: stackmux run' &&
	gives 125 "$stackmux" && complains '^usage:' &&
	gives 125 "$stackmux" sleep && complains "no command 'sleep'" &&
	gives 125 "$stackmux" run && complains 'which program' &&
	gives 125 "$stackmux" run --unknown true &&
	gives 125 "$stackmux" stat --unknown &&
	gives 125 "$stackmux" top --delay 0 && complains 'no positive number' &&
	gives 125 "$stackmux" top one
}

t_absent()
{
	gives 125 "$stackmux" run true && complains 'no stackmux' &&
	gives 3 "$stackmux" run --try -- sh -c 'exit 3' &&
	gives 125 "$stackmux" stat && complains 'no stackmux' &&
	gives 125 "$stackmux" stat $$ && complains 'no stackmux' &&
	gives 125 "$stackmux" top && complains 'no stackmux' &&
	gives 1 "$stackmux" doctor && says 'no stackmux'
}

t_run_status()
{
	echo 'no program' > "$tmp/file"
	gives 0 "$stackmux" run true &&
	gives 7 "$stackmux" run -- sh -c 'exit 7' &&
	gives 127 "$stackmux" run /no/such/program && complains 'cannot run' &&
	gives 126 "$stackmux" run "$tmp/file" && complains 'cannot run' &&
	gives 0 "$stackmux" run -- printf '%s' --try && says '^--try$'
}

# A child of a child parks, too
t_run_inherited()
{
	gives 0 "$stackmux" run -- sh -c \
		'sh -c "sed -n s/^Stackmux:.//p /proc/self/status; exit 0"' &&
	says '^ready$'
}

# The program runs, without parking
t_run_off()
{
	mode=$(cat $sysctl)
	echo 0 > $sysctl
	gives 3 "$stackmux" run -- sh -c 'exit 3'
	ran=$?
	echo "$mode" > $sysctl
	[ $ran -eq 0 ] && complains "kernel.stackmux is 0: 'sh' runs without parking"
}

t_stat_process()
{
	background "$stackmux" run -- sleep 1000
	becomes "$pid" parked || return 1
	gives 0 "$stackmux" stat "$pid" &&
	says "^$pid \(sleep\): 1 threads, 1 parked, which saves 0\.0 MiB" &&
	says '^clock_nanosleep +1 +0$' &&
	gives 0 "$stackmux" stat --json "$pid" &&
	says '"parked": 1,' && says '"ready": 0,' &&
	says '\{ "call": "clock_nanosleep", "parked": 1, "on_stack": 0 \}' &&
	python3 -m json.tool "$tmp/out" > /dev/null
}

t_stat_machine()
{
	gives 0 "$stackmux" stat && says '^[0-9]+ threads sleep without a stack' &&
	gives 0 "$stackmux" stat --json && says '"parks": [1-9]' &&
	python3 -m json.tool "$tmp/out" > /dev/null &&
	gives 125 "$stackmux" stat 4194305 && complains 'no process ID' &&
	gives 125 "$stackmux" stat 12x && complains 'no process ID' &&
	gives 125 "$stackmux" stat 4194303 && complains 'no such process' &&
	gives 125 "$stackmux" stat 1 1
}

t_top()
{
	gives 0 "$stackmux" top --batch --count 2 --delay 0.1 &&
	says " 1 +1 +0 +0 +0\.0  sleep$" &&
	[ "$(grep -c COMMAND "$tmp/out")" -eq 2 ]
}

t_doctor()
{
	gives 0 "$stackmux" doctor && says '^this kernel has stackmux' &&
	says "^kernel.stackmux is $(cat $sysctl):" || return 1
	background "$stackmux" run -- chrt -f 1 sleep 1000
	becomes "$pid" 'excluded realtime' &&
	gives 0 "$stackmux" doctor "$pid" && says '1 keep theirs: they have a real-time' ||
		return 1
	[ "$(cat $sysctl)" -eq 1 ] || return 0
	background sleep 1000
	becomes "$pid" off &&
	gives 0 "$stackmux" doctor "$pid" && says '1 are not to park: the process has not opted in'
}

t_tracepoints()
{
	tracing=/sys/kernel/tracing
	[ -d $tracing/events/stackmux ] || return 1
	mkdir "$tracing/instances/stackmux_test" || return 1
	instance=$tracing/instances/stackmux_test
	echo 1 > $instance/events/stackmux/enable
	# Two threads that take turns, so that stacks are taken, and one comes back
	"$stackmux" run -- sh -c 'for i in 1 2 3 4 5; do sleep 0.1; done'
	echo 0 > $instance/events/stackmux/enable
	cp $instance/trace "$tmp/out"
	rmdir $instance
	says 'sleep-.*: stackmux_park: call=nanosleep rearms=0' &&
	says ': stackmux_take: comm=sleep pid=' &&
	says 'sleep-.*: stackmux_resume: call=nanosleep other_mm='
}

# What is on a stack after execve() is not of one address space only: the stack of the
# first wait fits nobody, not even the one who left it.
t_exec_label()
{
	instance=/sys/kernel/tracing/instances/stackmux_test
	mkdir $instance || return 1
	echo 1 > $instance/events/stackmux/stackmux_resume/enable
	"$stackmux" run -- taskset 1 sleep 0.2
	echo 0 > $instance/events/stackmux/stackmux_resume/enable
	cp $instance/trace "$tmp/out"
	rmdir $instance
	says 'sleep-.*: stackmux_resume: call=nanosleep other_mm=1'
}

tests='usage absent'
if [ -e $sysctl ]; then
	tests='usage run_status run_inherited run_off stat_process stat_machine top doctor'
	tests="$tests tracepoints exec_label"
	echo 0 > "$linger"
fi

ktap_print_header
# shellcheck disable=SC2086
set -- $tests
ktap_set_plan $#
for t; do
	t_"$t"
	result $? "command.$t"
done
ktap_finished
