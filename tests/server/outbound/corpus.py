"""URLs that lead, or were meant to lead, somewhere a server must not be sent."""

from __future__ import annotations

from ipaddress import IPv4Address

_INSIDE_V4 = (
    "127.0.0.1", "127.0.0.2", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.254", "192.168.0.1", "169.254.169.254",  # noqa: S104
    "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1", "224.0.0.1", "255.255.255.255",
)  # fmt: skip
_INSIDE_V6 = (
    "::", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::FFFF:10.0.0.1", "::ffff:0:127.0.0.1",
    "::127.0.0.1", "::7f00:1", "64:ff9b::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1",
    "2002:7f00:1::", "2002:a00:1::1", "2001:0:7f00:1::1", "2001:db8::1", "2001:10::1", "2001:2::1", "3fff::1",
    "100::1", "5f00::1", "fc00::1", "fd00::1", "fd00:ec2::254", "fd20:ce::254", "fe80::1", "fe80::a9fe:a9fe",
    "fec0::1", "ff02::1", "ff0e::1", "fe80::1%25lo", "fe80::1%lo", "::1%25lo", "::1%1", "::ffff:127.0.0.1%25lo",
    "1::127.0.0.1", "4000::1", "::ffff:0177.0.0.1", "::ffff:127.1", "v1.127.0.0.1", "127.0.0.1",
)  # fmt: skip
_TRICKS = (
    # who is the host?
    "http://public.example@127.0.0.1:{port}/", "http://public.example:443@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}@public.example/", "http://a@b@127.0.0.1:{port}/", "http://@127.0.0.1:{port}/",
    "http://:@127.0.0.1:{port}/", "http://public.example%40127.0.0.1:{port}/", "http://a:b@[::1]:{port}/",
    "http://public.example#@127.0.0.1:{port}/", "http://127.0.0.1:{port}#@public.example/",
    "http://public.example?@127.0.0.1:{port}/", "http://127.0.0.1:{port}?@public.example/",
    "http://public.example\\@127.0.0.1:{port}/", "http://127.0.0.1:{port}\\@public.example/",
    "http://127.0.0.1:{port}\\.public.example/", "http:\\\\127.0.0.1:{port}/", "http:/\\127.0.0.1:{port}/",
    "http://public.example;@127.0.0.1:{port}/", "http://public.example&@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}:443/", "http://127.0.0.1::{port}/", "http://public.example:80:{port}@127.0.0.1/",
    "http://public.example,127.0.0.1:{port}/", "http://[public.example]@127.0.0.1:{port}/",
    "http://[::1]public.example:{port}/", "http://public.example[::1]:{port}/", "http://[::1]@public.example/",
    "http://[[::1]]:{port}/", "http://[::1:{port}/", "http://::1:{port}/", "http://[]:{port}/", "http://[:]:{port}/",
    # slashes, blanks and what no parser agrees about
    "http:127.0.0.1:{port}/", "http:/127.0.0.1:{port}/", "http:///127.0.0.1:{port}/", "http:////127.0.0.1:{port}/",
    "//127.0.0.1:{port}/", "127.0.0.1:{port}", "/127.0.0.1:{port}", "", " ", "http://", "http://:{port}/", "http://?",
    " http://127.0.0.1:{port}/", "http://127.0.0.1:{port}/ ", "\thttp://127.0.0.1:{port}/", "http://127.0.0.1:{port}/\n",
    "ht\ntp://127.0.0.1:{port}/", "http://127.0.0\n.1:{port}/", "http://127.0.0\t.1:{port}/", "http://127.0.0.1\r:{port}/",
    "http://127.0.0.1 :{port}/", "http:// 127.0.0.1:{port}/", "http://127.0.0.1\x00.public.example:{port}/",
    "http://public.example\x00@127.0.0.1:{port}/", "http://127.0.0.1%00.public.example:{port}/",
    "http://127.0.0.1%2f.public.example:{port}/", "http://127.0.0.1%23.public.example:{port}/",
    "http://127.0.0.1:{port}/\r\nHost: public.example", "http://public.example/\r\n\r\nPOST / HTTP/1.1",
    "http://127.0.0.1:{port}/\u2028", "http://\u202e127.0.0.1:{port}/", "http://\u200b127.0.0.1:{port}/",
    "http://127\u200d.0.0.1:{port}/", "http://\ufeff127.0.0.1:{port}/", "http://127.0.0.1\u00ad:{port}/",
    # digits and dots of other alphabets, which IDNA turns into ours
    "http://\uff11\uff12\uff17.0.0.1:{port}/", "http://\u2460\u2461\u2466.0.0.1:{port}/", "http://127\u30020.0.1:{port}/",
    "http://127\uff0e0\uff0e0\uff0e1:{port}/", "http://127\uff610\uff610\uff611:{port}/", "http://\u217c\u2134cal\u210d\u2134st:{port}/",
    "http://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3:{port}/", "http://loca\u017fhost:{port}/", "http://\u0661\u0662\u0667.0.0.1:{port}/",
    "http://public.example\uff0f@127.0.0.1:{port}/", "http://127.0.0.1\uff03@public.example/", "http://\uff3b::1\uff3d:{port}/",
    # ports
    "http://127.0.0.1:0{port}/", "http://127.0.0.1:+{port}/", "http://127.0.0.1:-1/", "http://127.0.0.1:65536/",
    "http://127.0.0.1:{port}abc/", "http://127.0.0.1:0x50/", "http://127.0.0.1:%38%30/", "http://127.0.0.1:\uff18\uff10/",
    "http://public.example:22/", "http://public.example:25/", "http://public.example:6379/", "http://public.example:0/",
    "http://public.example:11211/", "http://public.example:2375/", "http://public.example:10250/",
    # other schemes
    "file:///etc/passwd", "file://127.0.0.1:{port}/", "ftp://127.0.0.1:{port}/", "gopher://127.0.0.1:{port}/_x",
    "dict://127.0.0.1:{port}/x", "ldap://127.0.0.1:{port}/", "redis://127.0.0.1:{port}/", "unix:///run/redis.sock",
    "http+unix://%2Frun%2Fdocker.sock/", "ws://127.0.0.1:{port}/", "wss://127.0.0.1:{port}/", "data:text/plain,x",
    "javascript:alert(1)", "jar:http://127.0.0.1:{port}!/", "url:http://127.0.0.1:{port}/", "view-source:http://127.0.0.1:{port}/",
    "tftp://127.0.0.1:{port}/", "sftp://127.0.0.1:{port}/", "phar://x", "netdoc:///etc/passwd", "httpx://127.0.0.1:{port}/",
)  # fmt: skip
# A hostile name server sends each of these to loopback.
_NAMES = (
    "localhost", "LOCALHOST", "LocalHost", "localhost.", "localhost.localdomain", "ip6-localhost", "loop.example",
    "127.0.0.1.rebind.example", "7f000001.rebind.example", "127-0-0-1.rebind.example", "rebind.example",
    "metadata", "metadata.google.internal", "instance-data.ec2.internal", "kubernetes.default.svc.cluster.local",
    "redis", "host.docker.internal", "gateway.docker.internal", "xn--lcalhost-54a.example",
    "a_b.example", "x--y.example",
    "1.2.3.4.example", "0x7f.example", "127.0.0.1.", "127.0.0.1..", ".127.0.0.1", "a..b", "-a.example", "a-.example",
    "a" * 64 + ".example", "a." * 127 + "example", "127.0.0.1.example.", "999.999.999.999", "256.0.0.1", "1.2.3.4.5",
    "0", "00", "1", "0x", "0x0", "a.0x7f", "a.127", "1e9", "127.0.0.1e", "127.0.0.0x1",
)  # fmt: skip


def corpus(port: int) -> list[str]:
    """Each URL once; whatever can be reached listens on `port` of loopback."""
    urls = [f"http://{host}:{port}/" for host in _hosts()]
    urls += [trick.replace("{port}", str(port)) for trick in _TRICKS]
    return list(dict.fromkeys(urls))


def _hosts() -> list[str]:
    hosts = [spelling for text in _INSIDE_V4 for spelling in _spellings(text)]
    hosts += [f"[{text}]" for text in _INSIDE_V6]
    return [*hosts, *_NAMES]


def _spellings(text: str) -> list[str]:
    """The address as resolvers, browsers and libraries have been known to accept it."""
    number = int(IPv4Address(text))
    a, b, c, d = IPv4Address(text).packed
    return [
        text,
        f"{text}.",
        str(number),
        f"{number:#x}",
        f"{number:#X}",
        f"0{number:o}",
        str(number + 2**32),
        f"{a:#x}.{b:#x}.{c:#x}.{d:#x}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"{a:#x}.0{b:o}.{c}.{d}",
        f"{a}.{(b << 16) + (c << 8) + d}",
        f"{a}.{b}.{(c << 8) + d}",
        f"{a:03d}.{b:03d}.{c:03d}.{d:03d}",
        "".join(f"%{ord(character):02x}" for character in text),
        text.replace(".", "%2e"),
    ]
