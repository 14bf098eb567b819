#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""usage: ktap.py TREE STAGE < LOG

What the kernel's own parser of KTAP (that of the source TREE) makes of a log, a line
for each result, its fields separated by tabs:  pass|fail|skip  STAGE  test  reason

"# program: NAME" begins the output of another program, "# died: NAME REASON" says what
became of it; these are from scripts/guest/selftests. What the parser lets pass and must
not count as a pass is made a failure here.
"""

import io
import re
import sys

sys.path.insert(0, sys.argv[1] + "/tools/testing/kunit")
import kunit_parser as kunit  # pylint: disable=import-error,wrong-import-position
import kunit_printer  # pylint: disable=import-error,wrong-import-position

RESULT = re.compile(r"\s*(not )?ok\b")


def put(kind, name, why=""):
    """One result."""
    print(kind, sys.argv[2], name, why.strip(), sep="\t")


def result_line(line):
    """A result with a number, a name, and no # in it: else the parser takes it for a comment."""
    match = re.match(r"(\s*(?:not )?ok)(?: (\d+)\b)?\s*(?:- )?(.*?)(?: ?# (.*))?$", line)
    name = match[3].replace("#", "%").strip(" -") or "?"
    return f"{match[1]} {match[2] or 0} {name}" + (f" # {match[4]}" if match[4] else "")


def prepare(lines, bad):
    """The lines in the form that the parser wants: it takes a plan only behind a header."""
    body, plans, header = [], [], False
    for line in lines:
        if kunit.TEST_PLAN.match(line) and (not line[0].isspace() or not header):
            plans.append(line)
            if line[0].isspace():
                bad.append(("plan", "out of place: " + line.strip()))
            continue
        if RESULT.match(line):
            header = False
        elif any(r.match(line) for r in (kunit.KTAP_START, kunit.TAP_START, kunit.TEST_HEADER)):
            header = True
        body.append(line)
    plans = [plan for plan in plans if not plan[0].isspace()]
    done = sum(1 for line in body if RESULT.match(line) and not line[0].isspace())
    if len(plans) > 1 or (plans and done > int(kunit.TEST_PLAN.match(plans[0])[1])):
        bad.append(("plan", f"{done} results, planned: {' '.join(plans)}"))
        plans = []
    if body and any(r.match(body[0]) for r in (kunit.KTAP_START, kunit.TAP_START)):
        body.pop(0)
    return ["KTAP version 1"] + plans + body


def results(test, path=()):
    """The results of tests without subtests, and of others that fail by themselves."""
    found = [row for sub in test.subtests for row in results(sub, path + (test.name,))]
    ok = test.status in (kunit.TestStatus.SUCCESS, kunit.TestStatus.SKIPPED)
    if not test.subtests or (path and not ok and all(kind != "fail" for kind, _ in found)):
        kind = "skip" if test.status == kunit.TestStatus.SKIPPED else "pass" if ok else "fail"
        found.append((kind, test.name))
    return found


def judge(program, lines):
    """All about one program."""
    prefix = program + ": " if program else ""
    lines = [result_line(line) if RESULT.match(line) else line for line in lines]
    died = [re.match(r"# died: (\S+) (.*)", line) for line in lines]
    bad, rows = [], []
    skipped = [re.match(r"1\.\.0\s*# *SKIP:?(.*)", line) for line in lines]
    if any(skipped) and not any(map(RESULT.match, lines)):
        put("skip", prefix + "all", next(filter(None, skipped))[1])
    elif any(RESULT.match(line) or kunit.TEST_PLAN.match(line) for line in lines):
        said = io.StringIO()
        kunit.stdout = kunit_printer.Printer(said)
        why = dict(re.findall(r"^\s*(?:not )?ok \d+ ([^#\n]*) # (?:SKIP:? ?)?(.*)", "\n".join(lines), re.M))
        rows = results(kunit.parse_run_tests(prepare(lines, bad)))
        errors = re.findall(r"\[ERROR\] Test: (.*)", said.getvalue())
        if errors and all(kind != "fail" for kind, _ in rows):
            bad += [("log", error) for error in errors]
        for kind, name in rows:
            put(kind, prefix + (name or "plan"), why.get(name, "" if name else "no result"))
    elif program and not any(died):
        bad.append((program, "no results"))
    for name, reason in bad + [match.groups() for match in died if match]:
        put("fail", name, reason)


NAME, CHUNK = "", []
for text in list(sys.stdin) + ["# program: "]:
    text = text.rstrip("\r\n")
    begins = re.match(r"# program: (\S*)", text)
    # Programs, and suites of KUnit one after the other
    if begins or (re.match(r"K?TAP version", text) and any(map(RESULT.match, CHUNK))):
        judge(NAME, CHUNK)
        NAME, CHUNK = begins[1] if begins else NAME, []
    if not begins:
        CHUNK.append(text)
