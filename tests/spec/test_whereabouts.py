"""Where a ps listens and what it announces, on one machine and in a pod."""

import pytest

from tfleet.spec.environment import POD_IP, RENDEZVOUS, Whereabouts
from tfleet.wire.address import Address

LOCAL = ("127.0.0.1:4000", "127.0.0.1:4001")
NAMES = ("digits-ps-0.digits-ps:2222", "digits-ps-1.digits-ps:2222")


@pytest.mark.parametrize(
    ("index", "hosts", "environ", "where"),
    [
        (1, LOCAL, {}, Whereabouts(LOCAL[1], LOCAL[1], LOCAL[0])),
        (0, ("unix:@a", "unix:@b"), {}, Whereabouts("unix:@a", "unix:@a", "unix:@a")),
        (
            1,
            NAMES,
            {POD_IP: "10.0.0.7", RENDEZVOUS: "digits:2222"},
            Whereabouts("0.0.0.0:2222", "10.0.0.7:2222", "digits:2222"),
        ),
        (0, NAMES, {POD_IP: "fd00::7"}, Whereabouts("[::]:2222", "[fd00::7]:2222", NAMES[0])),
        (1, NAMES, {RENDEZVOUS: ""}, Whereabouts(NAMES[1], NAMES[1], NAMES[0])),
    ],
)
def test_where_a_ps_is(index, hosts, environ, where):
    assert Whereabouts.of(index, hosts, environ) == where
    for address in (where.listen, where.announce, where.first):
        Address.parse(address)
