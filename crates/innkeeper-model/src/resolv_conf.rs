//! The host's name servers, in files of the format resolv.conf(5).

use std::net::Ipv4Addr;

/// Files with the host's name servers. The second one has the real servers if the first one only has systemd-resolved's
/// loopback address.
pub const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Returns the name servers in a file that a guest can reach: guests have only IPv4, and a loopback address would be the
/// guest's own.
pub fn name_servers(text: &str) -> impl Iterator<Item = Ipv4Addr> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.split_ascii_whitespace();
            let keyword = parts.next()?;
            let address: Ipv4Addr = parts.next()?.parse().ok()?;
            (keyword == "nameserver").then_some(address)
        })
        .filter(|address| !address.is_loopback() && !address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_guests_reach_are_name_servers() {
        let text = "# x\nnameserver 127.0.0.53\nsearch x\nnameserver ::1\nnameserver\nnameserver 9.9.9.9\n\
            nameserver fe80::1%eth0\n  nameserver\t192.168.1.1 \nnameservers 1.1.1.1\nnameserver 0.0.0.0";
        let found: Vec<_> = name_servers(text)
            .map(|address| address.to_string())
            .collect();
        assert_eq!(found, ["9.9.9.9", "192.168.1.1"]);
    }
}
