"""gdb commands for a program that runs under fencepost: `source crates/fencepost-preload/gdb/fencepost.py`.

fencepost-block ADDRESS   which block an address belongs to, and who allocated and freed it
fencepost-sites [MOST]    the live blocks by where they were allocated, the most bytes first
fencepost-reports         the reports that nobody has read yet
fencepost-check           verify the bytes around every live block

They call functions of the program, so it must be stopped in a place where its allocator can be used. The stacks are
printed as addresses: fencepost-frames ADDRESS... names them.
"""

import re

import gdb


def call(expression):
    try:
        gdb.execute("call " + expression, to_string=True)
    except gdb.error as error:
        raise gdb.GdbError("the program has no fencepost in it: " + str(error))


class Block(gdb.Command):
    """Which block an address belongs to: fencepost-block ADDRESS"""

    def __init__(self):
        super().__init__("fencepost-block", gdb.COMMAND_DATA)

    def invoke(self, argument, _from_tty):
        address = int(gdb.parse_and_eval(argument).cast(gdb.lookup_type("unsigned long")))
        call("((void (*)(const void *))fencepost_describe_print)((void *)%d)" % address)


class Sites(gdb.Command):
    """The live blocks by where they were allocated, the most bytes first: fencepost-sites [MOST]"""

    def __init__(self):
        super().__init__("fencepost-sites", gdb.COMMAND_DATA)

    def invoke(self, argument, _from_tty):
        most = int(gdb.parse_and_eval(argument or "10"))
        call("((void (*)(unsigned long))fencepost_sites_print)(%d)" % most)


class Reports(gdb.Command):
    """The reports that nobody has read yet."""

    def __init__(self):
        super().__init__("fencepost-reports", gdb.COMMAND_DATA)

    def invoke(self, _argument, _from_tty):
        call("((void (*)(void))fencepost_reports_print)()")


class Check(gdb.Command):
    """Verify the bytes around every live block."""

    def __init__(self):
        super().__init__("fencepost-check", gdb.COMMAND_DATA)

    def invoke(self, _argument, _from_tty):
        call("((unsigned long (*)(void))fencepost_check)()")


class Frames(gdb.Command):
    """Names for addresses: fencepost-frames ADDRESS..."""

    def __init__(self):
        super().__init__("fencepost-frames", gdb.COMMAND_DATA)

    def invoke(self, argument, _from_tty):
        for address in re.findall(r"0x[0-9a-f]+", argument):
            gdb.execute("info symbol " + address)


Block()
Sites()
Reports()
Check()
Frames()
