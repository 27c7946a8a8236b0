"""What goes wrong in getting a broker."""


class BrokerUnavailableError(Exception):
    """There is no RabbitMQ to test with; the message names the one command that gets one."""


class BrokerFailedError(Exception):
    """A private RabbitMQ did not start, or a command on it failed; the message ends with what it said."""
