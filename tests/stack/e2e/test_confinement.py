"""Every running container follows the security rules for containers."""

from tests.support.compose_stack import Stack
from tests.support.container_rules import EXCEPTIONS, as_service, broken_rules


def test_running_containers_follow_the_security_rules(stack: Stack) -> None:
    broken = {
        (name, rule)
        for name in stack.services
        for container in stack.run("ps", "--quiet", name).stdout.split()
        for rule in broken_rules(as_service(container))
    }
    assert broken == {(name, rule) for name, rule in EXCEPTIONS if name in stack.services}
