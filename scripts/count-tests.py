# SPDX-License-Identifier: Apache-2.0
"""Count Meson's JUnit log: names what failed or was skipped, then prints PASSED FAILED SKIPPED."""
import sys
import xml.etree.ElementTree as ET

passed = failed = skipped = 0
for suite in ET.parse(sys.argv[1]).getroot().iter("testsuite"):
    name = suite.get("name", "")
    cases = list(suite.iter("testcase"))
    bad = 0
    for case in cases:
        title = f"{name}: {case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            failed, bad = failed + 1, bad + 1
            print(f"not ok - {title}")
        elif case.find("skipped") is not None:
            skipped += 1
            print(f"skipped - {title}: {case.findtext('system-out') or 'no reason given'}")
        else:
            passed += 1
    # A program that dies leaves no line of its own: the suite's counts tell.
    if not bad and int(suite.get("failures") or 0) + int(suite.get("errors") or 0):
        failed += 1
        print(f"not ok - {name}: ended early")
    if not cases and not bad:
        failed += 1
        print(f"not ok - {name}: ran no test")
print(passed, failed, skipped)
