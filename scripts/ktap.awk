# SPDX-License-Identifier: GPL-2.0
#
# awk -v stage=NAME -f scripts/ktap.awk: what a KTAP log says, one line for each
# result, its fields separated by tabs:  pass|fail|skip  stage  test  reason
#
# A result that sums up the more deeply indented ones before it does not count,
# unless it failed and none of them did. Results that a plan announced and that
# never came are failures. "# program: NAME" and "# died: NAME REASON" come from
# scripts/guest-selftests.

function out(kind, name, why) { printf "%s\t%s\t%s\t%s\n", kind, stage, name, why }
function missing(   d) {
	for (d in plan)
		if (seen[d] < plan[d])
			out("fail", where(), plan[d] - seen[d] " of " plan[d] " tests gave no result")
	delete plan; delete seen
}
function where() { return program == "" ? "plan" : program }
{ sub(/\r$/, "") }
# The output of the next program begins
/^# program: / { missing(); program = $3; depth = 0; failed_below = 0; next }
/^# died: / { name = $3; sub(/^# died: [^ ]+ /, ""); out("fail", name, $0); next }
/^ *(K?TAP) version/ {
	match($0, /^ */)
	if (RLENGTH == 0) missing()
	next
}
/^ *1\.\.[0-9]+/ {
	match($0, /^ */); d = RLENGTH
	n = $1; sub(/^1\.\./, "", n)
	# An inner list begins anew in each suite
	plan[d] += n
	next
}
/^ *(not )?ok [0-9]+/ {
	match($0, /^ */); d = RLENGTH
	seen[d]++
	bad = $1 == "not"
	name = $0
	sub(/^ *(not )?ok [0-9]+ *(- *)?/, "", name)
	why = ""
	if (match(name, / *# */)) {
		why = substr(name, RSTART + RLENGTH)
		name = substr(name, 1, RSTART - 1)
	}
	if (program != "") name = program ": " name
	if (d < depth) {
		if (bad && !failed_below) out("fail", name, why)
		if (d == 0) failed_below = 0
		depth = d
		next
	}
	depth = d
	if (bad) { out("fail", name, why); failed_below = 1 }
	else if (why ~ /^SKIP/) { sub(/^SKIP:? */, "", why); out("skip", name, why) }
	else out("pass", name, "")
}
END { missing() }
