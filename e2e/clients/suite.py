"""Runs the tests below a folder and prints as JSON how many passed, and the names of those that did not.

Usage: suite.py FOLDER [NAME ...]: all of them, or these.
"""

import json
import os
import sys
import unittest

os.chdir(sys.argv[1])
sys.path.insert(0, ".")
names = sys.argv[2:]
load = unittest.defaultTestLoader
tests = load.loadTestsFromNames(names) if names else load.discover("tests", top_level_dir=".")


class Names(unittest.TextTestResult):
    passed = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1


result = unittest.TextTestRunner(stream=sys.stderr, resultclass=Names).run(tests)


def name(test):
    # What a class needs before its first test fails as "setUpClass (the class)".
    return test.id().removesuffix(")").rpartition("(")[2]


failed = sorted({name(test) for test, _ in result.failures + result.errors})
print(json.dumps({"passed": result.passed, "failed": failed}))
