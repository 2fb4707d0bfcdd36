"""What holds for all tests."""

import signal

# A shell's background job ignores Ctrl-C, and one under nohup SIGHUP. tfleet lets an ignored signal stay ignored, and
# so would every process that a test starts: here they mean what they mean in a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
