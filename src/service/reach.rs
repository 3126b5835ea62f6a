//! Which addresses a host may turn out to be, judged on the address itself and not on its name.
//!
//! A public name that resolves to this machine, its network or a cloud's metadata service was not
//! meant by whoever wrote it: somebody else answers for that name, today or from now on. No I/O
//! here; the dialler asks for every address that it is about to connect to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that a host may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Any: the host was given as an address, or the user has said so (`--allow-private`).
    Anywhere,
    /// This machine only: the host is `localhost` or below it (RFC 6761 section 6.3).
    Loopback,
    /// What the whole internet can reach: the host is any other name.
    Public,
}

impl Reach {
    /// What a host, given as in an [`Origin`](super::Origin), may turn out to be.
    #[must_use]
    pub fn of(host: &str) -> Reach {
        if host.parse::<IpAddr>().is_ok() {
            return Reach::Anywhere;
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        let last = name.rsplit('.').next().unwrap_or_default();
        if last.eq_ignore_ascii_case("localhost") {
            Reach::Loopback
        } else {
            Reach::Public
        }
    }

    /// What kind of address this is, if it must not be dialled.
    #[must_use]
    pub fn refuses(self, address: IpAddr) -> Option<&'static str> {
        match self {
            Reach::Anywhere => None,
            Reach::Loopback if address.to_canonical().is_loopback() => None,
            Reach::Loopback => Some("not a loopback address"),
            Reach::Public => match address {
                IpAddr::V4(address) => special_v4(address),
                IpAddr::V6(address) => special_v6(address),
            },
        }
    }
}

/// The IANA IPv4 Special-Purpose Address Registry (RFC 6890), multicast (RFC 5771) and what is
/// reserved (RFC 1112 section 4). Blocks of which a few addresses are global stay closed as a whole.
fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    Some(match address.octets() {
        [0, ..] => "an unspecified address",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "a private address",
        [100, 64..=127, ..] => "a carrier's shared address",
        [127, ..] => "a loopback address",
        [169, 254, ..] => "a link-local address",
        [192, 0, 0, _] | [192, 88, 99, _] => "an address of the protocol itself",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "a documentation address",
        [198, 18 | 19, ..] => "a benchmarking address",
        [224..=239, ..] => "a multicast address",
        [255, 255, 255, 255] => "the broadcast address",
        [240..=255, ..] => "a reserved address",
        _ => return None,
    })
}

/// Only 2000::/3 is global unicast (RFC 4291 section 2.4). An address that carries an IPv4 one is
/// judged by that: a translator on the way may take it out again.
fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let carried = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        special_v4(Ipv4Addr::new(a, b, c, d))
    };
    Some(match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => "an unspecified address",
        [0, 0, 0, 0, 0, 0, 0, 1] => "a loopback address",
        // IPv4-mapped (RFC 4291 section 2.5.5.2) and NAT64 (RFC 6052 section 2.1).
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            return carried(high, low);
        }
        // IPv4-compatible, withdrawn (RFC 4291 section 2.5.5.1).
        [0, 0, 0, 0, 0, 0, ..] => "an IPv4-compatible address",
        // Where in it the IPv4 address stands is each network's own choice (RFC 8215).
        [0x64, 0xff9b, 1, ..] => "a network's own NAT64 address",
        [0xfc00..=0xfdff, ..] => "a private address",
        [0xfe80..=0xfebf, ..] => "a link-local address",
        [0xfec0..=0xfeff, ..] => "a site-local address",
        [0xff00..=0xffff, ..] => "a multicast address",
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => "a documentation address",
        // Teredo (RFC 4380), benchmarking (RFC 5180), ORCHID and others; nobody's host is there.
        [0x2001, 0..=0x01ff, ..] => "an address of the protocol itself",
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => return carried(high, low),
        [0x2000..=0x3fff, ..] => return None,
        _ => "a reserved address",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(reach: Reach, address: &str) -> Option<&'static str> {
        reach.refuses(address.parse().unwrap())
    }

    #[test]
    fn what_a_host_may_be_depends_on_how_it_was_given() {
        for host in ["127.0.0.1", "10.0.0.1", "::1", "169.254.169.254", "8.8.8.8"] {
            assert_eq!(Reach::of(host), Reach::Anywhere, "{host}");
        }
        for host in ["localhost", "localhost.", "a.localhost", "LOCALHOST"] {
            assert_eq!(Reach::of(host), Reach::Loopback, "{host}");
        }
        // Numbers that only inet_aton(3) takes for an address are names here, and resolved as such.
        for host in [
            "api.example.com",
            "notlocalhost",
            "localhost.example",
            "localhost..",
            "2130706433",
            "127.1",
            "0x7f.1",
            "",
        ] {
            assert_eq!(Reach::of(host), Reach::Public, "{host}");
        }
    }

    #[test]
    fn a_public_name_is_at_no_special_address() {
        for (address, kind) in [
            ("169.254.169.254", "link-local"),
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.255", "loopback"),
            ("10.0.0.0", "private"),
            ("10.255.255.255", "private"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.168.1.1", "private"),
            ("100.64.0.1", "shared"),
            ("100.100.100.200", "shared"),
            ("100.127.255.255", "shared"),
            ("192.0.0.192", "protocol"),
            ("192.88.99.1", "protocol"),
            ("192.0.2.1", "documentation"),
            ("198.51.100.1", "documentation"),
            ("203.0.113.255", "documentation"),
            ("198.18.0.1", "benchmarking"),
            ("198.19.255.255", "benchmarking"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "broadcast"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::2", "compatible"),
            ("::127.0.0.1", "compatible"),
            ("::8.8.8.8", "compatible"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:169.254.169.254", "link-local"),
            ("::ffff:0:127.0.0.1", "reserved"),
            ("64:ff9b::10.0.0.1", "private"),
            ("64:ff9b::169.254.169.254", "link-local"),
            ("64:ff9b:1::10.0.0.1", "NAT64"),
            ("64:ff9b:1:ffff::8.8.8.8", "NAT64"),
            ("64:ff9b:2::1", "reserved"),
            ("fc00::1", "private"),
            ("fd00:ec2::254", "private"),
            ("fdff:ffff::", "private"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("fec0::1", "site-local"),
            ("ff02::1", "multicast"),
            ("ffff::", "multicast"),
            ("100::1", "reserved"),
            ("2001:db8::1", "documentation"),
            ("3fff::1", "documentation"),
            ("3fff:fff::1", "documentation"),
            ("2001::1", "protocol"),
            ("2001:0:7f00:1::", "protocol"),
            ("2001:2::1", "protocol"),
            ("2001:1ff:ffff::", "protocol"),
            ("2002:7f00:1::1", "loopback"),
            ("2002:a9fe:a9fe::1", "link-local"),
            ("2002:c0a8:101::", "private"),
            ("4000::1", "reserved"),
            ("5f00::1", "reserved"),
        ] {
            let said = refused(Reach::Public, address).unwrap_or("nothing");
            assert!(said.contains(kind), "{address}: {said}");
        }
    }

    #[test]
    fn a_public_name_is_at_any_public_address() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2000::",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2003::1",
            "2606:4700::1111",
            "3fff:1000::1",
            "2002:808:808::1",
            "::ffff:8.8.8.8",
            // A network without IPv4 reaches the rest of the world like this (RFC 6147).
            "64:ff9b::8.8.8.8",
        ] {
            assert_eq!(refused(Reach::Public, address), None, "{address}");
        }
    }

    #[test]
    fn localhost_is_this_machine() {
        for address in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(refused(Reach::Loopback, address), None, "{address}");
        }
        for address in ["8.8.8.8", "10.0.0.1", "0.0.0.0", "::", "2606:4700::1111"] {
            assert!(refused(Reach::Loopback, address).is_some(), "{address}");
        }
    }

    #[test]
    fn what_was_given_as_an_address_is_taken_at_its_word() {
        for address in ["127.0.0.1", "169.254.169.254", "fd00::1", "8.8.8.8"] {
            assert_eq!(refused(Reach::Anywhere, address), None, "{address}");
        }
    }
}
