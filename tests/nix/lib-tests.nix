# Tests of modules/lib.nix: an attribute for each promise that is broken, so nothing at all when all is well.
let
  ours = import ../../modules/lib.nix;
  cases = {
    "an address is a number" = ours.address "10.100.0.2" == 174325762;
    "the last address is one" = ours.address "255.255.255.255" == 4294967295;
    "five parts are no address" = ours.address "1.2.3.4.5" == null;
    "a part above 255 is no address" = ours.address "256.1.1.1" == null;
    "a part with a leading zero is no address" = ours.address "10.0.0.01" == null;
    "an empty text is no address" = ours.address "" == null;
    "IPv6 is no IPv4 address" = ours.address "2001:db8::1" == null;
    "a network has a first and a last address" =
      let
        network = ours.network "10.100.0.0/16";
      in
      network.first == ours.address "10.100.0.0" && network.last == ours.address "10.100.255.255";
    "everything is a network" = (ours.network "0.0.0.0/0").last == 4294967295;
    "one address is a network" = (ours.network "10.0.0.1/32").prefix == 32;
    "a host part that is not zero is refused" = ours.network "10.100.0.1/16" == null;
    "a network without a length is refused" = ours.network "10.100.0.0" == null;
    "a length above 32 is refused" = ours.network "10.0.0.0/33" == null;
    "a network overlaps with a part of itself" = ours.overlap "10.0.0.0/8" "10.100.0.0/16";
    "neighbours do not overlap" = !ours.overlap "10.100.0.0/16" "10.101.0.0/16";
    "an address lies in its network" = ours.inside "10.100.7.1" "10.100.0.0/16";
    "an address lies in no other network" = !ours.inside "10.101.7.1" "10.100.0.0/16";
    "15 bytes are an interface's name" = ours.isInterfaceName "abcdefghijklmno";
    "16 bytes are none" = !ours.isInterfaceName "abcdefghijklmnop";
    "a slash is in none" = !ours.isInterfaceName "eth/0";
    "an empty name is none" = !ours.isInterfaceName "";
    "a domain has a dot" = ours.isDomain "preview.example.org" && !ours.isDomain "localhost";
    "a domain is in lower case" = !ours.isDomain "Preview.example.org";
    "a wildcard is no domain" = !ours.isDomain "*.example.org";
    "a label does not begin with a hyphen" = !ours.isDomain "-a.example.org";
    "a path in the store is found" = ours.inStore "${builtins.storeDir}/abc-secret";
    "a path outside is not" = !ours.inStore "/var/secrets/key";
  };
in
builtins.filter (promise: !cases.${promise}) (builtins.attrNames cases)
